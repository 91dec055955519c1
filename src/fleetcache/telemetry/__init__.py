"""What fleetcache tells other tools, each in a module that imports the tool only where it is in use.

Its modules:

    tracing      what the span exporters have in common; how the tools of a process are noticed
    sentry       spans and breadcrumbs in Sentry
    otel_spans   spans in OpenTelemetry
    datadog      spans in Datadog
    metrics      every metric: its name, sentence and unit, and how it is read from what was counted
    otel         metrics in OpenTelemetry
    prometheus   metrics in Prometheus
    statsd       metrics by any StatsD client
    toolbar      awaited calls in the Cache panel of django-debug-toolbar
"""
