"Receptive fields of random networks: settings against gradients; single layers; state; errors; pictures."
import random
from fractions import Fraction

import matplotlib.pyplot as plt
import pytest
import torch
from torch import nn

from miniai.receptive import (Field, FieldTable, effective_receptive_field, field_box, precedents, receptive_field,
                              show_field, show_precedents)
from miniai.windows import Window, window

pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")

@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close('all')

# --- random networks
def any_layer(rng, ups=True):
    pair = lambda lo, hi: rng.choice([rng.randint(lo, hi), (rng.randint(lo, hi), rng.randint(lo, hi))])
    kinds = [lambda: nn.Conv2d(1, 1, pair(1, 3), pair(1, 3), pair(0, 3), pair(1, 2)),
             lambda: nn.Conv2d(1, 1, pair(1, 4), padding='same', dilation=pair(1, 2)),
             lambda: nn.Conv2d(1, 1, pair(1, 3), padding='valid'),
             lambda: nn.AvgPool2d(rng.randint(2, 3), rng.choice([None, 1, 2, 3]), rng.randint(0, 1), ceil_mode=rng.random()<.5),
             lambda: nn.ZeroPad2d([rng.randint(-1, 2) for _ in range(4)]), lambda: nn.ReLU(),
             lambda: nn.BatchNorm2d(1), lambda: nn.Dropout2d(), lambda: nn.Identity(),
             lambda: nn.Sequential(*[any_layer(rng, ups) for _ in range(rng.randint(1, 3))])]
    if ups: kinds += [lambda: nn.Upsample(scale_factor=rng.choice([2, 3, (1, 2)])), lambda: nn.UpsamplingNearest2d(scale_factor=2),
                      lambda: nn.ConvTranspose2d(1, 1, pair(1, 4), pair(1, 3), rng.randint(0, 1)),
                      lambda: nn.ConvTranspose2d(1, 1, 3, padding=1, dilation=2),
                      lambda: nn.ConvTranspose2d(1, 1, 3, 2, 1, output_padding=1)]
    return rng.choice(kinds)()

def networks(n, seed, ups=True, sides=(4, 14)):
    "`n` random chains with an input size that leaves room, in which every weight is positive."
    rng = random.Random(seed)
    while n:
        net = nn.Sequential(*[any_layer(rng, ups) for _ in range(rng.randint(1, 5))]).double().eval()
        for o in net.parameters(): nn.init.constant_(o, .5)
        size = rng.randint(*sides), rng.randint(*sides)
        try: out = net(torch.ones(1, 1, *size, dtype=torch.float64)).shape
        except RuntimeError:
            with pytest.raises(ValueError, match='has no room'): receptive_field(net, size)
            continue
        if 0 in out or max(out)>200: continue
        n -= 1
        yield net, size, out[2:], (rng.randrange(out[2]), rng.randrange(out[3]))

def gradient(net, x, unit):
    x = x.clone().requires_grad_()
    return torch.autograd.grad(net(x.clone())[..., unit[0], unit[1]].sum(), x)[0].abs().sum((0, 1))

def places(rows, cols, size):
    res = torch.zeros(size, dtype=torch.bool)
    if rows and cols: res[torch.tensor(rows)[:,None], torch.tensor(cols)] = True
    return res

def test_precedents_are_exactly_the_pixels_with_a_gradient():
    kinds, empty = set(), 0
    for net, size, out, unit in networks(300, 0):
        _, rows, cols = precedents(net, size, unit)[-1]
        seen = gradient(net, torch.ones(1, 1, *size, dtype=torch.float64), unit)!=0
        assert torch.equal(seen, places(rows, cols, size)), net
        top, left, bottom, right = field_box(net, size, unit)
        where = seen.nonzero()
        if len(where):      # inside the box, and reaching all its edges
            assert (top, left) == tuple(where.amin(0).tolist()) and (bottom-1, right-1) == tuple(where.amax(0).tolist())
        else: assert (top, left, bottom, right) == (0, 0, 0, 0)
        empty += not len(where)
        kinds |= {r.layer for r in receptive_field(net, size)}
    assert len(kinds)>=9 and 0<empty<100      # all kinds have taken part; some units see padding only

def test_sizes_are_those_of_torch():
    for net, size, out, _ in networks(100, 1):
        shape = receptive_field(net, size)[-1].out if len(receptive_field(net, size)) else size
        assert (shape if isinstance(shape, tuple) else (shape, shape)) == tuple(out)

def test_signs_do_not_lead_outside():
    torch.manual_seed(0)
    for net, size, out, unit in networks(100, 2):
        for o in net.parameters(): nn.init.normal_(o)
        _, rows, cols = precedents(net, size, unit)[-1]
        influence = effective_receptive_field(net, torch.randn(3, 1, *size, dtype=torch.float64), unit)
        assert not influence[~places(rows, cols, size)].any() and influence.dtype==torch.float64

def test_table_is_right_away_from_the_border():
    checked = 0
    for net, size, out, _ in networks(150, 3, ups=False, sides=(60, 90)):
        unit = out[0]//2, out[1]//2
        trace, row = precedents(net, size, unit), receptive_field(net, size)[-1]
        maps = [size, *(r.out if isinstance(r.out, tuple) else (r.out,)*2 for r in receptive_field(net, size))][::-1]
        for axis in (0, 1):
            if any(not o[1+axis] or o[1+axis][0]==0 or o[1+axis][-1]==n[axis]-1 for o, n in zip(trace, maps)): continue
            size_, jump, start = [o[axis] if isinstance(o, tuple) else o for o in row[3:]]
            pixels = trace[-1][1+axis]
            assert (pixels[0], pixels[-1]) == (start + unit[axis]*jump, start + unit[axis]*jump + size_ - 1), net
            checked += 1
    assert checked > 100

@pytest.mark.parametrize('layers, period', [
    ([nn.Upsample(scale_factor=2), nn.Conv2d(1, 1, 3, padding=1)], 2),
    ([nn.Upsample(scale_factor=3), nn.Conv2d(1, 1, 2)], 3),
    ([nn.Conv2d(1, 1, 5, 2), nn.Upsample(scale_factor=2), nn.Conv2d(1, 1, 3), nn.Upsample(scale_factor=2), nn.Conv2d(1, 1, 4)], 4),
    ([nn.ConvTranspose2d(1, 1, 3, 2, 1), nn.Conv2d(1, 1, 3, dilation=2)], 2), ([nn.ConvTranspose2d(1, 1, 5, 3)], 3)])
def test_table_is_a_mean_behind_an_upsampling(layers, period):
    net = nn.Sequential(*layers)
    row = receptive_field(net, 40)[-1]
    units = range(row.out//2, row.out//2 + period)
    pixels = [precedents(net, 40, (i, i))[-1].rows for i in units]
    assert Fraction(sum(o[-1]-o[0]+1 for o in pixels), period) == row.size
    assert sum(o[0] for o in pixels) == sum(row.start + i*row.jump for i in units)

def test_max_pooling_stays_inside_and_reaches_the_edges():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.MaxPool2d(3, 2, 1), nn.Conv2d(2, 2, 3, stride=2), nn.MaxPool2d(2, ceil_mode=True))
    for o in net.parameters(): nn.init.uniform_(o, .5, 1)
    for unit in ((0, 0), (1, 2), (2, 1)):
        influence = effective_receptive_field(net, torch.rand(400, 1, 21, 21), unit)
        _, rows, cols = precedents(net, 21, unit)[-1]
        assert not influence[~places(rows, cols, (21, 21))].any()
        where = influence.nonzero()
        assert (*where.amin(0).tolist(), *(where.amax(0)+1).tolist()) == field_box(net, 21, unit)
        one = effective_receptive_field(nn.MaxPool2d(3), torch.rand(1, 1, 21, 21), unit)
        assert one.count_nonzero()==1

# --- single layers
@pytest.mark.parametrize('layer, n, want', [
    (nn.MaxPool2d(2), 7, Window(3, 0, 1, 2)), (nn.MaxPool2d(2, ceil_mode=True), 7, Window(4, 0, 1, 2)),
    (nn.MaxPool2d(3, 1, 1, dilation=2), 7, Window(5, -1, 3, 1, dilation=2)), (nn.AvgPool2d(2, 2, 1, ceil_mode=True), 3, Window(2, -1, 0, 2)),
    (nn.Conv2d(1, 1, 4, padding='same'), 7, Window(7, -1, 2)), (nn.AdaptiveMaxPool2d((None, 2)), 8, Window(8)),
    (nn.AvgPool2d([2, 3], [2, 3], [1, 0]), 7, Window(4, -1, 0, 2)), (nn.Upsample(21), 7, Window(21, up=3)), (nn.Upsample(scale_factor=2., mode='nearest-exact'), 7, Window(14, up=2)),
    (nn.ConstantPad2d((1, 2, 3, 4), 7.), 7, Window(14, -3, -3)), (nn.GroupNorm(1, 1), 7, Window(7, 0, 6, 0))])
def test_windows(layer, n, want): assert window(layer, n, 0)==want

def test_window_reads_without_padding():
    assert Window(9, -2, 2, dilation=2).reads(0, 9) == [0, 2] and Window(9, -3, -3).reads(1, 9) == []
    assert Window(28, step=0).reads(27, 1) == [0]

def test_fields_stay_whole_numbers_where_they_can():
    f = Field().after(Window(28, up=2)).after(Window(14, step=2))
    assert type(f.jump) is int and f.jump==1 and Field().after(Window(9, up=3)).jump == Fraction(1, 3)

def test_everything_from_a_linear_layer_on():
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(72, 4), nn.ReLU(), nn.Linear(4, 18), nn.Unflatten(1, (2, 3, 3)), nn.Conv2d(2, 1, 3, padding=1))
    net.double().apply(lambda m: [nn.init.ones_(o) for o in m.parameters(recurse=False)])
    assert [r.size for r in receptive_field(net, 8)] == [3, *[8]*6] and receptive_field(net, 8)[-1].out==3
    assert field_box(net, 8, (0, 2)) == field_box(net, 8, 3, '2') == field_box(net, 8, (1, 0, 0), 2) == (0, 0, 8, 8)
    x = torch.ones(2, 1, 8, 8, dtype=torch.float64)
    assert effective_receptive_field(net, x, (0, 2)).min()>0 and effective_receptive_field(net, x, 3, '2').min()>0

def test_group_norm_sees_everything():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 4, 3, 2, padding=1), nn.GroupNorm(2, 4), nn.Conv2d(4, 4, 3, padding=1)).eval()
    assert field_box(net, 9, (2, 2)) == (0, 0, 9, 9)
    assert effective_receptive_field(net, torch.randn(9, 1, 9, 9), (2, 2)).min()>0

# --- tables and names
def blocks(): return nn.Sequential(nn.Sequential(nn.Conv2d(1, 2, 3, 2, 1), nn.ReLU()), nn.Sequential(nn.Conv2d(2, 3, 3, 2, 1), nn.ReLU()), nn.Flatten(), nn.Linear(12, 5))

def test_table_prints():
    table = receptive_field(blocks(), (8, 9))
    assert isinstance(table, FieldTable) and [r.name for r in table] == ['0.0', '0.1', '1.0', '1.1', '2', '3']
    lines = repr(table).splitlines()
    assert lines[0].split() == ['name', 'layer', 'out', 'size', 'jump', 'start'] and len(lines)==7
    assert lines[1].split() == ['0.0', 'Conv2d', '4,', '5', '3', '2', '-1'] and len({len(o) for o in lines[1:]})==1
    assert repr(FieldTable()).split() == ['name', 'layer', 'out', 'size', 'jump', 'start']

def test_names_are_those_of_the_model():
    net = nn.Sequential(nn.Sequential(nn.Identity(), nn.Sequential(nn.ReLU(), nn.Identity())), nn.ReLU())
    names = dict(net.named_modules())
    assert [(r.name, r.layer) for r in receptive_field(net, 5)] == [(k, type(names[k]).__name__) for k in ('0.0', '0.1.0', '0.1.1', '1')]

def test_layer_by_number_name_or_block():
    net = blocks()
    for layer, name in ((0, '0.0'), ('0', '0.1'), (3, '1.1'), ('1', '1.1'), ('1.0', '1.0'), (-3, '1.1'), (-1, '3')):
        unit = 2 if name=='3' else (1, 1)
        assert precedents(net, 8, unit, layer)[0].name==name
    assert precedents(nn.Conv2d(1, 1, 3), 8, (0, 0))[0].name=='' and receptive_field(nn.Conv2d(1, 1, 3), 8)[0].size==3

def test_a_layer_used_twice_counts_twice():
    same = nn.Conv2d(1, 1, 3, padding=1)
    assert [r.size for r in receptive_field(nn.Sequential(same, same), 9)] == [3, 5]

def test_needs_no_weights():
    with torch.device('meta'): net = blocks()
    assert receptive_field(net, 8) == receptive_field(blocks(), 8)

class Residual(nn.Sequential):
    def forward(self, x): return x + super().forward(x)

class Same(nn.Sequential):
    is_chain = True
    def forward(self, x): return super().forward(x)

def test_only_chains_are_opened():
    c = lambda: nn.Conv2d(1, 1, 3, padding=1)
    with pytest.raises(TypeError, match="layer '1': Residual has layers of its own"): receptive_field(nn.Sequential(c(), Residual(c())), 9)
    assert receptive_field(nn.Sequential(c(), Same(c())), 9)[-1].size==5
    x = torch.ones(1, 1, 9, 9)
    net = nn.Sequential(c(), Residual(c()))
    assert torch.equal(effective_receptive_field(net, x, (4, 4))>0, gradient(net, x, (4, 4))>0)

class Mine(nn.Module):
    def forward(self, x): return x

def test_register():
    with pytest.raises(TypeError, match='Mine is not known.*window.register'): window(Mine(), 3, 0)
    class Sub(nn.ReLU): pass
    assert window(Sub(), 3, 0)==Window(3)      # a kind of ReLU is one
    window.register(Mine, lambda layer, n, axis: Window(n))
    assert receptive_field(nn.Sequential(Mine()), 3)[0].size==1

# --- measuring
@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
def test_influence_is_the_mean_size_of_the_gradient(dtype):
    torch.manual_seed(0)
    net, x = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Tanh(), nn.Conv2d(4, 2, 3)).to(dtype), torch.randn(5, 3, 8, 9).to(dtype)
    def one(unit):
        total = torch.zeros(8, 9, dtype=dtype)
        for o in x:
            o = o[None].clone().requires_grad_()
            total += torch.autograd.grad(net(o)[0][unit], o)[0][0].abs().sum(0)
        return total
    for want, unit in ((one((1, 2, 3)), (1, 2, 3)), (one((0, 2, 3))+one((1, 2, 3)), (2, 3))):
        got = effective_receptive_field(net, x, unit)
        assert got.dtype==dtype and got.max()==1 and torch.allclose(got, want/want.max(), atol=1e-5)

def test_a_dead_unit_gives_zeros():
    net = nn.Sequential(nn.Conv2d(1, 1, 3), nn.ReLU())
    nn.init.constant_(net[0].bias, -100)
    assert not effective_receptive_field(net, torch.rand(2, 1, 5, 5), (0, 0)).any()

def test_looking_changes_nothing():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Dropout(), nn.ReLU(inplace=True), nn.Conv2d(4, 2, 3))
    net[1].eval()
    net[0].weight.requires_grad_(False)
    net[4].weight.grad = torch.ones_like(net[4].weight)
    x = torch.rand(4, 1, 9, 9)
    before = {k: v.clone() for k, v in net.state_dict().items()}
    modes, grads, rng, copy = [m.training for m in net.modules()], [o.grad is None for o in net.parameters()], torch.get_rng_state(), x.clone()
    a = effective_receptive_field(net, x, (2, 2))
    show_field(net, x, (2, 2))
    show_precedents(net, x, (2, 2))
    with pytest.raises(ValueError): effective_receptive_field(net, x.repeat(1, 2, 1, 1), (2, 2))
    assert all(torch.equal(before[k], v) for k, v in net.state_dict().items()) and torch.equal(rng, torch.get_rng_state())
    assert modes == [m.training for m in net.modules()] and grads == [o.grad is None for o in net.parameters()]
    assert (net[4].weight.grad==1).all() and torch.equal(x, copy) and not x.requires_grad and not a.requires_grad
    assert torch.equal(a, effective_receptive_field(net.eval(), x, (2, 2)))      # dropout was off

@pytest.mark.parametrize('mode', [torch.no_grad, torch.inference_mode])
def test_measures_inside_no_grad(mode):
    net = nn.Conv2d(1, 1, 3)
    with mode(): got = effective_receptive_field(net, torch.rand(1, 1, 5, 5), (1, 1))
    assert got.count_nonzero()==9

def test_any_model_can_be_measured():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Conv2d(1, 1, 3, padding=1), nn.Conv2d(1, 1, 1)
        def forward(self, x): return self.b(x) + self.a(x)
    assert effective_receptive_field(Net(), torch.rand(1, 1, 5, 5), (2, 2)).count_nonzero()==9
    with pytest.raises(TypeError, match='^receptive_field: Net has layers of its own'): receptive_field(Net(), 5)

def test_on_other_devices():
    for dev in [d for d, ok in (('cuda', torch.cuda.is_available()), ('mps', torch.backends.mps.is_available())) if ok]:
        net, x = blocks(), torch.rand(3, 1, 8, 8)
        want = effective_receptive_field(net, x, (1, 1), '1')
        assert torch.allclose(effective_receptive_field(net.to(dev), x.to(dev), (1, 1), '1').cpu(), want, atol=1e-4)
        show_field(net, x.to(dev), (1, 1), '1')
        show_precedents(net, x.to(dev), (1, 1), '1')
        with pytest.raises(ValueError, match='dtype and device'): effective_receptive_field(net, x, (1, 1), '1')

# --- errors
c3 = lambda **kw: nn.Conv2d(1, 1, 3, **kw)
@pytest.mark.parametrize('net, size, exc, words', [
    (3, 8, TypeError, 'model must be an nn.Module, got int 3'), (c3, 8, TypeError, 'model must be'), (c3(), 8., TypeError, 'input_size must be a whole'),
    (c3(), 0, ValueError, 'input_size must be at least 1'), (c3(), (1, 8, 8), ValueError, r'\(H,W\), got \(1, 8, 8\)'), (c3(), '28', TypeError, 'input_size'),
    (c3(), 2, ValueError, r'Conv2d\(1, 1.*no room on a map of \(2, 2\)'), (c3(padding_mode='reflect', padding=1), 8, TypeError, "padding_mode='reflect'"),
    (nn.Sequential(c3(), nn.LSTM(1, 1)), 8, TypeError, "layer '1': LSTM is not known"),
    (nn.Sequential(nn.Sequential(c3(), nn.Upsample(scale_factor=1.5))), 8, TypeError, "layer '0.1': Upsample by 1.5"),
    (nn.Upsample(scale_factor=.5), 8, TypeError, 'Upsample by 0.5'), (nn.Upsample(scale_factor=2, mode='bilinear'), 8, TypeError, 'bilinear'),
    (nn.Upsample(20), 8, TypeError, 'Upsample by 5/2'), (nn.AdaptiveAvgPool2d(3), 8, ValueError, 'cannot cut 8 places'),
    (nn.ConvTranspose2d(1, 1, 3, 2, dilation=2), 8, TypeError, 'stride and dilation'), (nn.Linear(8, 2), 8, ValueError, r'nn.Flatten\(\) before'),
    (nn.ZeroPad2d(-4), 8, ValueError, 'no room'), (nn.Sequential(), 8, ValueError, 'the model has no layers'), (nn.ReflectionPad2d(1), 8, TypeError, 'ReflectionPad2d is not known')])
def test_errors_of_settings(net, size, exc, words):
    with pytest.raises(exc, match=f'^receptive_field: .*{words}'): receptive_field(net, size)
    with pytest.raises(exc, match=f'^precedents: .*{words}'): field_box(net, size, (0, 0))

@pytest.mark.parametrize('unit, layer, exc, words', [
    ((4, 0), '0', ValueError, 'row of unit must be between 0 and 3, got 4'), ((0, -1), '0', ValueError, 'col of unit'), (5, '0', ValueError, r'map of \(4, 4\) is \(row, col\)'),
    ((0, 0, 0, 0), '0', ValueError, r'\(row, col\)'), ((0,), '0', ValueError, r'\(row, col\)'), ((0., 0), '0', TypeError, 'row of unit must be a whole'),
    ((0, 0), 'o', ValueError, "layer must be one of 0.0, 0.1, 1.0"), ((0, 0), '1.3', ValueError, 'Did you mean'), ((0, 0), 6, ValueError, 'layer must be between -6 and 5'),
    ((0, 0), None, TypeError, 'layer must be a whole number')])
def test_errors_of_units(unit, layer, exc, words):
    for f in (lambda: precedents(blocks(), 8, unit, layer), lambda: effective_receptive_field(blocks(), torch.rand(1, 1, 8, 8), unit, layer)):
        with pytest.raises(exc, match=words): f()

@pytest.mark.parametrize('x, exc, words', [
    (torch.rand(1, 8, 8), ValueError, r'\[N,C,H,W\], got float32 \[1,8,8\].*x\[None\]'), (torch.zeros(1, 1, 8, 8).byte(), TypeError, r'x\.float\(\)/255'),
    ([[1.]], TypeError, 'x must be a float tensor'), (torch.rand(0, 1, 8, 8), ValueError, r'x must hold an image, got float32 \[0,1,8,8\]'),
    (torch.rand(1, 3, 8, 8), ValueError, "layer '0.0', Conv2d.*does not take float32 .1,3,8,8.*channels"), (torch.rand(1, 1, 8, 8).double(), ValueError, 'dtype'),
    (torch.rand(1, 1, 9, 20), ValueError, "layer '3', Linear.*does not take")])
def test_errors_of_images(x, exc, words):
    with pytest.raises(exc, match=f'^effective_receptive_field: .*{words}'): effective_receptive_field(blocks(), x, 0)
    with pytest.raises(exc): show_field(blocks(), x, 0)
    with pytest.raises(exc): show_precedents(blocks(), x, 0)

def test_more_errors_of_measuring():
    class Cut(nn.Module):
        def forward(self, x): return x.detach()
    x = torch.rand(1, 1, 8, 8)
    with pytest.raises(ValueError, match='no gradient reaches x'): effective_receptive_field(nn.Sequential(Cut(), c3()), x, (0, 0))
    with pytest.raises(ValueError, match='no gradient reaches x'): effective_receptive_field(Cut(), x, (0, 0))
    with pytest.raises(ValueError, match=r'must give \[N,C,H,W\]'): effective_receptive_field(nn.Flatten(2), x, (0, 0))
    with pytest.raises(ValueError, match='channel of unit must be between 0 and 1'): effective_receptive_field(blocks(), x, (2, 0, 0), '0')
    with pytest.raises(ValueError, match='unit must be between 0 and 4'): effective_receptive_field(blocks(), x, 5)
    with pytest.raises(ValueError, match='makes no row'): receptive_field(nn.Flatten(2), 8)
    with pytest.raises(ValueError, match='must turn a row'): receptive_field(nn.Unflatten(1, (1, 1)), 1)

# --- pictures
def test_show_field_draws_box_and_influence():
    x = torch.rand(2, 1, 8, 10)
    for o in (x, x.repeat(1, 3, 1, 1)):
        net = nn.Sequential(nn.Conv2d(o.shape[1], 2, 3, padding=1), nn.AvgPool2d(2))
        ax = show_field(net, o, (1, 3), 0)
        top, left, bottom, right = field_box(net, (8, 10), (1, 3), 0)
        assert ax.patches[0].get_bbox().extents.tolist() == [left-.5, top-.5, right-.5, bottom-.5]
        shade = ax.images[1].get_array()[...,3]
        assert shade.max() == pytest.approx(.8) and (torch.tensor(shade)>0).nonzero().amin(0).tolist() == [top, left]

def test_show_precedents_leaves_out_what_moves_nothing():
    axs = show_precedents(blocks(), torch.rand(1, 1, 8, 8), 3)
    assert [o.get_title().split('\n') for o in axs] == [['3', '1×1'], ['1.1', '2×2'], ['0.1', '4×4'], ['image', '8×8']]
    assert [len(o.patches) for o in axs] == [1]*4 and len(axs[0].figure.artists)==6
    axs = show_precedents(nn.ReLU(), torch.rand(1, 1, 8, 8), (3, 4))
    assert [o.get_title() for o in axs] == ['\n1×1', 'image\n1×1']
