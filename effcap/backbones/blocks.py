"""Finds the blocks of a vision network from its graph, independent of layer names."""

from __future__ import annotations

from itertools import pairwise

import keras
from keras.layers import (
    BatchNormalization,
    Conv2D,
    DepthwiseConv2D,
    Dropout,
    GroupNormalization,
    LayerNormalization,
    SeparableConv2D,
    ZeroPadding2D,
)

MERGES = ("Add", "Concatenate")  # classes of layers and of plain operations
CONVOLUTIONS = (Conv2D, DepthwiseConv2D, SeparableConv2D)
NORMALIZATIONS = (BatchNormalization, GroupNormalization, LayerNormalization)
SKIPPED = (Dropout, ZeroPadding2D)  # between a normalization and the next convolution


def find_blocks(model: keras.Model) -> list[list[keras.layers.Layer]]:
    """Returns the layers of each block of a functional model, first to last.

    The graph is cut at the operations that every path from input to output passes through. A block
    ends at one of three kinds of cut:

    - A residual connection is added, or concatenated as in DenseNet. The block starts after the
      cut where the connection branches off, or right after the previous block where only
      normalizations and activations lie between.
    - A linear bottleneck: convolution, normalization and, with no activation between, the next
      convolution, as in inverted residual blocks without a residual connection (Sandler et al.,
      "MobileNetV2", CVPR 2018). The block starts at the convolution with the fewest input channels
      since the previous block.
    - A layer with the attribute `is_residual_block`, such as a `TransformerBlock`, is a block by
      itself, with its residual connections inside.

    The stem, the head and convolutions between blocks (downsampling in ConvNeXt, transitions in
    DenseNet) belong to no block.

    Args:
        model: network with one input and one output.

    Returns:
        A list of layers per block; no blocks for a network without any such cut, such as VGG, and
        for a subclass of `keras.Model` with its own `call`, whose graph is unknown.
    """
    graph = _Graph(model)
    blocks: list[list[keras.layers.Layer]] = []
    end = None
    for before, cut in pairwise(graph.cuts):
        if getattr(graph.operations[cut], "is_residual_block", False):
            blocks.append([graph.operations[cut]])
            end = cut
            continue
        start = graph.start_of_residual(before, cut, end)
        if start is None:
            start = graph.start_of_bottleneck(cut, end)
        if start is not None:
            blocks.append(graph.layers(start, cut))
            end = cut
    return blocks


class _Graph:
    """The operations of a model, numbered in topological order.

    Attributes:
        operations: layers and plain operations; one that is called twice occurs twice.
        channels: size of the last axis of each one's output.
        inputs, outputs: numbers of the operations that each one reads from and feeds.
        cuts: numbers of the operations that every path from input to output passes through.
    """

    def __init__(self, model: keras.Model) -> None:
        by_depth = getattr(getattr(model, "_functional", model), "_nodes_by_depth", {})
        nodes = [node for depth in sorted(by_depth, reverse=True) for node in by_depth[depth]]
        numbers = {id(node): number for number, node in enumerate(nodes)}
        self.operations = [node.operation for node in nodes]
        self.channels = [node.output_tensors[0].shape[-1] for node in nodes]
        self.inputs = [[numbers[id(parent)] for parent in node.parent_nodes] for node in nodes]
        self.outputs: list[list[int]] = [[] for _ in nodes]
        for number, parents in enumerate(self.inputs):
            for parent in parents:
                self.outputs[parent].append(number)
        self.cuts, furthest = [], 0
        for number, outputs in enumerate(self.outputs):
            if furthest <= number:  # no edge leads past this operation
                self.cuts.append(number)
            furthest = max([furthest, *outputs])

    def start_of_residual(self, before: int, cut: int, end: int | None) -> int | None:
        """Returns the operation after which the block whose connection is merged at `cut` starts.

        Args:
            before: the cut before `cut`.
            cut: the operation in question.
            end: the last one of the previous block, if there is one.

        Returns:
            None if nothing is merged at `cut`.
        """
        if type(self.operations[cut]).__name__ not in MERGES or len(set(self.inputs[cut])) < 2:
            return None
        if end is None:
            return before
        weighted = [layer for layer in self.layers(end, before) if layer.weights]
        return end if all(isinstance(layer, NORMALIZATIONS) for layer in weighted) else before

    def start_of_bottleneck(self, cut: int, end: int | None) -> int | None:
        """Returns the operation after which the linear bottleneck that ends at `cut` starts.

        Args:
            cut: the operation in question.
            end: the last one of the previous block, if there is one.

        Returns:
            None if no linear bottleneck ends at `cut`.
        """
        if not (
            isinstance(self.operations[cut], NORMALIZATIONS)
            and isinstance(self.operations[self.inputs[cut][0]], CONVOLUTIONS)
            and self.feeds_convolution(cut)
        ):
            return None
        if end is None:  # the stem is at least the first convolution
            end = next(c for c in self.cuts if isinstance(self.operations[c], CONVOLUTIONS))
        starts = [c for c in self.cuts if end <= c < cut and self.feeds_convolution(c)]
        return min(starts, key=lambda c: self.channels[c], default=None)

    def feeds_convolution(self, number: int) -> bool:
        """Returns whether a convolution reads an operation's output, padded or not."""
        for reader in self.outputs[number]:
            operation = self.operations[reader]
            if isinstance(operation, CONVOLUTIONS):
                return True
            if isinstance(operation, SKIPPED) and self.feeds_convolution(reader):
                return True
        return False

    def layers(self, start: int, end: int) -> list[keras.layers.Layer]:
        """Returns the layers after operation `start`, up to and including `end`."""
        operations = self.operations[start + 1 : end + 1]
        return [layer for layer in operations if isinstance(layer, keras.layers.Layer)]
