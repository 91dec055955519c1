"""Whether a site can move to fleetcache, and what will change: `check` reads its settings, and writes nothing.

    report       what is found: of each cache, of packages, of tools
    origins      the backends that fleetcache replaces, and how their settings are written for it
    entries      one entry of ``CACHES``: what is read, ignored or refused; what its servers hold
    differences  what behaves differently after the move
    overrides    methods of the site's classes that name or change entries
    packages     installed packages and the site's own code that depend on another backend
    tools        tools that watch caches: what they will see

Neither Django nor django-redis has to be installed.
"""

from fleetcache.inspection.migration.checking import check
from fleetcache.inspection.migration.report import AliasReport, Note, OptionReport, Report

__all__ = ["AliasReport", "Note", "OptionReport", "Report", "check"]
