"""Writes msd_vgg_reference.npz: outputs of musicnn's own graphs of MSD_vgg.

TensorFlow 1.12 stored the graphs beside the weights in the PyPI package musicnn 0.1.0 (`.meta`).
The graph of MSD_vgg has the pooling "trained"; that of MTT_vgg is the same with the pooling
"musicnn". The package's code is not run.

    pip download --no-deps musicnn==0.1.0 && unzip musicnn-*.whl
    pip install tensorflow==2.21.0 librosa==0.11.0
    python tests/data/make_msd_vgg_reference.py PATH_OF_UNZIPPED_musicnn

The inputs are in tests/helpers/audio_reference.py. The file holds
    trained, musicnn: (2, 256) float32, the graph's last pooling layer for `windows()`, with
        MSD_vgg's weights;
    trained_seeded, musicnn_seeded: (2, 256) float32, the same with the weights of `seeded()`;
    trained_track, musicnn_track: (256,) float32, the mean over the four windows of twelve seconds
        of `melody()`, with MSD_vgg's weights.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

sys.path.append(str(Path(__file__).parents[1]))

from helpers.audio_reference import mel_spectrogram, melody, seeded, windows  # noqa: E402

OUTPUT = "model/max_pooling2d_4/MaxPool"


def graph_output(meta: Path, weights: dict[str, np.ndarray], inputs: np.ndarray) -> np.ndarray:
    """Returns the output (N, 256) of the last pooling layer for windows (N, 187, 96)."""
    import tensorflow as tf
    from tensorflow.core.protobuf.meta_graph_pb2 import MetaGraphDef

    stored = MetaGraphDef.FromString(meta.read_bytes())
    # TensorFlow 2 cannot import the gradients of the whole graph.
    part = tf.compat.v1.graph_util.extract_sub_graph(stored.graph_def, [OUTPUT])
    with tf.Graph().as_default() as graph:
        tf.import_graph_def(part, name="")
    feed = {"model/Placeholder:0": inputs, "model/Placeholder_2:0": False}
    names = [op.name for op in graph.get_operations() if op.type in ("Variable", "VariableV2")]
    assert set(names) == set(seeded()), names
    feed |= {f"{name}/read:0": weights[name] for name in names}
    with tf.compat.v1.Session(graph=graph) as session:
        output = session.run(f"{OUTPUT}:0", feed)
    return output.reshape(len(inputs), 256)  # (N,2,1,128) -> (N,256)


if __name__ == "__main__":
    import tensorflow as tf

    package = Path(sys.argv[1])
    reader = tf.compat.v1.train.NewCheckpointReader(f"{package}/MSD_vgg/")
    trained = {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}
    graphs = {"trained": package / "MSD_vgg/.meta", "musicnn": package / "MTT_vgg/.meta"}
    mel = mel_spectrogram(melody(16000, 12))  # (751,96)
    track = np.log10(1 + 10000 * mel)[: 4 * 187].reshape(4, 187, 96)
    arrays = {}
    for pooling, meta in graphs.items():
        arrays[pooling] = graph_output(meta, trained, windows())
        arrays[f"{pooling}_seeded"] = graph_output(meta, seeded(), windows())
        arrays[f"{pooling}_track"] = graph_output(meta, trained, track).mean(axis=0)
    np.savez_compressed(Path(__file__).with_name("msd_vgg_reference.npz"), **arrays)
