"""Region features of photos: HDF5 files, their writer, and datasets. May use `data`."""
