"""Parts of a batch lose at random what they lose where all of it passes."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch.utils.checkpoint import checkpoint

from v1tlearn import nn
from v1tlearn.nn import drawing, fast
from v1tlearn.nn.cores.vit import StochasticDepth
from v1tlearn.nn.layers.dropout import Dropout

ROWS = [(0, 1, 2), (3, 4), (2, 4, 0), (1,)]
LAYERS = {
    "dropout": lambda: (Dropout(0.3), (5, 7, 11, 13)),  # odd numbers to a row
    "dropout of large rows": lambda: (Dropout(0.3), (5, 17_001)),
    "rows of several per trial": lambda: (Dropout(0.3), (15, 9)),
    "attention": lambda: (nn.Attention(8, 2, 9, head_dim=3, scale=0.5, dropout=0.4), (5, 9, 8)),
    "attention to tokens": lambda: (
        nn.Attention(8, 2, 9, head_dim=8, scale=0.5, dropout=0.4),
        (5, 9, 8),
    ),
    "stochastic depth": lambda: (StochasticDepth(0.5), (5, 3, 2)),
    "readout": lambda: (nn.GaussianReadout((2, 5, 6), 4), (5, 2, 5, 6)),
    "dilated layer": lambda: (nn.DilatedLayer(3, 1, dropout=0.4), (5, 3, 4, 5, 5)),
    "blocks": lambda: (nn.MultiscaleBlock(3, (1, 3), causal=True, dropout=0.5), (5, 3, 6, 7, 7)),
}
WAYS = {
    "compiled": lambda: fast.using("compiled"),
    "bfloat16": lambda: torch.autocast("cpu", torch.bfloat16),
    "blocked": lambda: fast.using("blocked"),
    "plain": fast.plain,
}
# blocks of queries decide on the numbers; and what is made for float32 alone
NOT_SO = [("attention", "blocked"), ("attention to tokens", "blocked"), ("blocks", "bfloat16")]


def passed(layer, inputs, part=None):
    """What comes out, and the gradient of its squares, from one seed."""
    generator = torch.Generator().manual_seed(3)
    torch.manual_seed(3)
    for norm in (module for module in layer.modules() if isinstance(module, torch.nn.BatchNorm2d)):
        norm.eval()  # its statistics are of all rows
    inputs = inputs.clone().requires_grad_()
    if part is None:
        out = layer(inputs)
    else:
        rows = torch.tensor(part)
        inputs = inputs.detach().unflatten(0, (5, -1))[rows].flatten(0, 1).requires_grad_()
        torch.manual_seed(99)  # of this process alone
        places = drawing.Places(rows, 5)
        with drawing.part(drawing.Part(generator, places, {"A": places})):
            out = layer(inputs)
    out.float().square().sum().backward()
    return out.detach().unflatten(0, (5 if part is None else len(part), -1)), inputs.grad


@pytest.mark.parametrize(
    ("kind", "way"), [(k, w) for k in LAYERS for w in WAYS if (k, w) not in NOT_SO]
)
def test_rows_of_a_part_are_those_of_the_whole(kind, way):
    torch.manual_seed(0)
    layer, shape = LAYERS[kind]()
    layer.train()
    inputs = torch.randn(shape)
    with WAYS[way]():
        whole, gradient = passed(layer, inputs)
        assert not torch.equal(whole[:1], passed(layer.eval(), inputs)[0][:1])
        layer.train()
        for part in ROWS:
            out, own = passed(layer, inputs, part)
            torch.testing.assert_close(out, whole[list(part)])
            expected = gradient.unflatten(0, (5, -1))[list(part)].flatten(0, 1)
            torch.testing.assert_close(own, expected)


def test_what_is_computed_again_loses_the_same():
    layer, inputs = Dropout(0.5), torch.randn(5, 30)

    class Again(Dropout):
        def forward(self, x):
            contexts = {"context_fn": drawing.drawn_again}
            return checkpoint(super().forward, x, use_reentrant=False, **contexts)

    out, gradient = passed(Again(0.5), inputs, (1, 3))
    expected, own = passed(layer, inputs, (1, 3))
    assert torch.equal(out, expected)
    assert torch.equal(gradient, own)


def test_parts_that_lack_a_mouse_draw_what_the_others_do():
    readouts = {mouse: nn.GaussianReadout((2, 5, 6), 4) for mouse in "AB"}
    features = {mouse: torch.randn(3, 2, 5, 6) for mouse in "AB"}

    def read(mice, generator, states):
        places = {mouse: drawing.Places(torch.arange(3), 3) for mouse in mice}
        own = drawing.Part(generator, drawing.Places(torch.arange(3), 6), places, states)
        with drawing.part(own):
            found = {}
            for mouse in mice:
                with drawing.of_mouse(mouse):
                    found[mouse] = readouts[mouse](features[mouse])
        return found

    generator, states = torch.Generator().manual_seed(0), {}
    both = read("AB", generator, states)
    after = generator.get_state()
    for mouse in "BA":
        assert torch.equal(read(mouse, generator, states)[mouse], both[mouse])
        assert torch.equal(generator.get_state(), after)
    assert not torch.equal(read("B", generator, {})["B"], both["B"])


def test_other_threads_have_no_part():
    own = drawing.Places(torch.arange(2), 4)
    with drawing.part(drawing.Part(torch.Generator(), own, {})):
        assert drawing.places(4).whole == 8
        assert drawing.places(3) is None  # of no whole number to a trial
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(drawing.places, 2).result() is None
    assert drawing.places(2) is None
