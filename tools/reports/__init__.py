"""Reports: HTML pages, JSON files and listings of settings. May use all below `tools`."""
