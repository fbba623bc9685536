"""Region features in HDF5 as training data: VisualGPT's `detections.hdf5`."""
