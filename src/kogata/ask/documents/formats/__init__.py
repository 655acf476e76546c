"""One module a family of formats, each with ``read(source, out)``; imported only in the process that parses."""
