"""One module a format of a trainer, each with a `Writer` of rows (`mmtok.export.pack.Writer`)."""
