"""Sources to shards: folders, archives, packages and dataset names become tars, a manifest and an index."""

from datamodules.build.builder import BuildOptions, BuildReport, build, build_shards
from datamodules.build.names import open_source, source_names
from datamodules.build.source import Entry, Source

__all__ = ["BuildOptions", "BuildReport", "Entry", "Source", "build", "build_shards", "open_source", "source_names"]
