"Chains of layers: which models are opened, names, sizes and outputs; single windows are tested with the receptive fields."
import pytest
import torch
from torch import nn

from miniai.cells import check_layers
from miniai.receptive import receptive_field
from miniai.summary import summary
from miniai.windows import Link, Window, chain, chain_outputs, chain_upto, chain_windows, check_images, is_chain

class Residual(nn.Sequential):
    def forward(self, x): return x + super().forward(x)

class Same(Residual):
    is_chain = True
    def forward(self, x): return nn.Sequential.forward(self, x)

class Closed(nn.Sequential):
    is_chain = False

c3 = lambda: nn.Conv2d(1, 1, 3, padding=1)

@pytest.mark.parametrize('model, want', [(nn.Sequential(c3()), True), (Same(c3()), True), (Residual(c3()), False), (Closed(c3()), False),
                                         (c3(), False), (nn.ModuleList([c3()]), False), (nn.Sequential(), True)])
def test_what_is_a_chain(model, want): assert is_chain(model) is want

def test_names_and_order():
    act = nn.ReLU()
    net = nn.Sequential(c3(), nn.Sequential(act, nn.Sequential(c3(), act)), Residual(c3()), nn.Sequential())
    assert [k for k, _ in chain(net)] == ['0', '1.0', '1.1.0', '1.1.1', '2']
    assert all(m is net.get_submodule(k) for k, m in chain(net)) and chain(act) == [('', act)] and chain(nn.Sequential()) == []
    named = nn.Sequential()
    named.add_module('stem', nn.Sequential(c3()))
    named.add_module('head', act)
    assert [k for k, _ in chain(named)] == ['stem.0', 'head']

def test_three_lessons_walk_alike():
    "The table of fields, the table of costs and the workbook open the same models, and keep the same ones closed."
    x = torch.rand(1, 1, 8, 8)
    for block in (nn.Sequential, Same):
        net = nn.Sequential(c3(), block(c3(), nn.ReLU()))
        names = ['0', '1.0', '1.1']
        assert [r.name for r in receptive_field(net, 8)] == names == [k for k, _ in check_layers(net)]
        assert [r.field for r in summary(net, x)] == [str(r.size) for r in receptive_field(net, 8)] == ['3', '5', '5']
    for block in (Residual, Closed):
        net = nn.Sequential(c3(), block(c3(), nn.ReLU()), nn.ReLU())
        with pytest.raises(TypeError, match="layer '1': "): receptive_field(net, 8)
        with pytest.raises(TypeError, match=r"layer '1' \("): check_layers(net)
    assert [r.field for r in summary(nn.Sequential(c3(), Residual(c3()), nn.ReLU()), x)] == ['3', '5', '']      # no layer made the sum

def test_sizes():
    net = nn.Sequential(nn.Conv2d(1, 1, 3, 2, 1), nn.MaxPool2d((2, 1)))
    links = chain_windows('who', chain(net), (8, 9))
    assert links[0] == Link('0', net[0], (8, 9), (Window(4, -1, 1, 2), Window(5, -1, 1, 2))) and links[1].size == (4, 5)
    assert [w.out for w in links[1].windows] == [2, 5] == list(net(torch.rand(1, 1, 8, 9)).shape[2:])
    assert chain_windows('who', [], 8) == []
    with pytest.raises(ValueError, match=r"^who: layer '1': MaxPool2d.* has no room on a map of \(1, 1\)"): chain_windows('who', chain(net), 1)

def test_outputs_are_all_kept():
    net, x = nn.Sequential(c3(), nn.ReLU(inplace=True), nn.BatchNorm2d(1).eval()), torch.randn(2, 1, 5, 5)
    outs = chain_outputs('who', chain(net), x)
    assert len(outs) == 4 and outs[0] is x and torch.equal(outs[1], net[0](x)) and (outs[1]<0).any()           # the ReLU had a copy
    assert torch.equal(outs[3], net(x))
    with pytest.raises(ValueError, match=r"^who: layer '2', BatchNorm2d.*does not take float32 \[2,25\]"):      # torch's own is a ValueError
        chain_outputs('who', [('1', nn.Flatten()), ('2', net[2])], x)

def test_up_to_a_layer():
    net = nn.Sequential(nn.Sequential(c3(), nn.ReLU()), c3(), nn.Sequential(*[nn.ReLU() for _ in range(11)]))
    names = lambda layer: [k for k, _ in chain_upto('who', net, layer)]
    assert names('0') == ['0.0', '0.1'] == names(1) and names('2.1')[-1] == '2.1' and names('2')[-1] == '2.10' == names(-1)[-1]
    with pytest.raises(ValueError, match=r'^who: layer must be one of 0\.0, .*'): names('3')
    with pytest.raises(ValueError, match='^who: the model has no layers'): chain_upto('who', nn.Sequential())
    with pytest.raises(TypeError, match='^who: model must be an nn.Module'): chain_upto('who', 3)

def test_images():
    x = torch.rand(1, 1, 2, 2)
    assert check_images('who', x) is x
    for bad, exc in ((x[0], ValueError), (x[:0], ValueError), (x.byte(), TypeError), ([1.], TypeError)):
        with pytest.raises(exc, match='^who: x must'): check_images('who', bad)
