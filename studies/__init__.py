"""Studies: models and measurements behind pages of the documentation; benchmarks compare speeds.

``python -m studies.scaling``   What do 1,000 workers ask of the servers?  (``docs/scaling.md``)
``python -m studies.replicas``  Which servers answer reads, by READ_FROM?  (``docs/replicas.md``)
"""
