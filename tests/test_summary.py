"Prices against torch's counter on random layers; which calls get a row; fields; and that nothing is left behind."
import gc, random, weakref
from itertools import product

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from miniai.autoencoder import ConvAutoencoder, deconv
from miniai.conv import conv
from miniai.receptive import Window, effective_receptive_field, field_box, receptive_field, window
from miniai.summary import LayerRow, LayerTable, count_macs, record_layers, summary

def torch_macs(f):
    with FlopCounterMode(display=False) as counter: f()
    return counter.get_total_flops()//2

def hooks(model): return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())

def lesson_cnn(**kw):
    return nn.Sequential(conv(1, 4, **kw), conv(4, 8, **kw), conv(8, 16, **kw), conv(16, 16, **kw), conv(16, 10, act=False), nn.Flatten())

class Add(nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.layer = layer
    def forward(self, x): return x + self.layer(x)

# --- prices
def random_layer(rng, dim):
    groups, size = rng.choice([1, 1, 2, 3]), tuple(rng.randint(7, 12) for _ in range(dim))
    ni, nf, ks = groups*rng.randint(1, 3), groups*rng.randint(1, 3), tuple(rng.randint(1, 3) for _ in range(dim))
    kw = dict(stride=rng.randint(1, 3), padding=rng.randint(0, 1), dilation=rng.randint(1, 2), groups=groups, bias=rng.random()<.5)
    kind = rng.choice([(nn.Conv1d, nn.Conv2d, nn.Conv3d), (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)])[dim-1]
    return kind(ni, nf, ks, **kw), torch.rand(rng.randint(1, 3), ni, *size)

@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
@pytest.mark.parametrize('dim', [1, 2, 3])
def test_convolutions_cost_what_torch_counts(dim, dtype):
    rng = random.Random(dim)
    for _ in range(40):
        layer, x = random_layer(rng, dim)
        layer, x = layer.to(dtype), x.to(dtype)
        want = torch_macs(lambda: layer(x))
        assert len(x)*count_macs(layer, x, layer(x)) == want > 0
        row, = summary(layer, x)
        assert row.macs*len(x) == want and row.params == sum(p.numel() for p in layer.parameters())
        assert row.out == layer(x).shape[1:] and row.layer == type(layer).__name__ and row.name == ''

@pytest.mark.parametrize('shape', [(1, 5), (3, 5), (2, 4, 5), (2, 3, 4, 5)])
def test_linear_layers_cost_what_torch_counts(shape):
    layer, x = nn.Linear(5, 7), torch.rand(shape)
    assert len(x)*count_macs(layer, x, layer(x)) == torch_macs(lambda: layer(x)) == summary(layer, x).macs*len(x)

@pytest.mark.parametrize('layer, shape, rest, train', [
    (nn.BatchNorm1d(6), (6,), 1, 2), (nn.BatchNorm2d(6), (6, 5, 4), 1, 2), (nn.BatchNorm3d(6), (6, 2, 3, 4), 1, 2),
    (nn.BatchNorm2d(6, track_running_stats=False), (6, 5, 4), 2, 2), (nn.InstanceNorm2d(6), (6, 5, 4), 2, 2),
    (nn.InstanceNorm1d(6, track_running_stats=True), (6, 5), 1, 2), (nn.GroupNorm(3, 6), (6, 5, 4), 2, 2),
    (nn.LayerNorm(4), (6, 5, 4), 2, 2), (nn.LayerNorm(4, elementwise_affine=False), (4,), 2, 2)])
def test_norms(layer, shape, rest, train):
    x = torch.rand(3, *shape)
    numbers = x[0].numel()
    assert summary(layer, x).macs == rest*numbers
    with record_layers(layer.train()) as table: layer(x)
    assert table.macs == train*numbers

@pytest.mark.parametrize('layer', [nn.ReLU(), nn.PReLU(), nn.SiLU(), nn.Sigmoid(), nn.MaxPool2d(2), nn.AvgPool2d(2), nn.AdaptiveAvgPool2d(1),
                                   nn.Flatten(), nn.Identity(), nn.Dropout(), nn.ZeroPad2d(1), nn.Upsample(scale_factor=2), nn.PixelShuffle(2),
                                   nn.Softmax(1), nn.Unflatten(1, (2, 2))])
def test_free_layers(layer):
    table = summary(layer, torch.rand(2, 4, 6, 6))
    assert len(table) == 1 and table.macs == 0 and table[0].macs == 0

def test_lookup_is_free():
    table = summary(nn.Sequential(nn.Embedding(9, 4), nn.Linear(4, 2)), torch.tensor([[1, 2, 3]]))
    assert [(r.params, r.macs) for r in table] == [(36, 0), (10, 24)] and table[0].out == (3, 4)

def test_unknown_layers():
    class Double(nn.Module):
        def forward(self, x): return 2*x
    class Shift(nn.Module):
        def __init__(self):
            super().__init__()
            self.by = nn.Parameter(torch.ones(3))
        def forward(self, x): return x + self.by
    table = summary(nn.Sequential(Double(), nn.Linear(3, 3)), torch.rand(2, 3))
    assert [r.macs for r in table] == [None, 9] and 'at least' not in repr(table) and '?' in repr(table)
    table = summary(nn.Sequential(Shift(), nn.Linear(3, 3)), torch.rand(2, 3))
    assert [r.macs for r in table] == [None, 9] and table.macs == 9 and 'at least 9' in repr(table)

def test_a_method_or_a_rule_gives_the_price():
    class Mine(nn.Linear):
        def forward(self, x): return super().forward(super().forward(x))
    class Square(nn.Module):
        def macs(self, x, out): return x[0].numel()
        def forward(self, x): return x*x
    assert summary(Mine(3, 3), torch.rand(2, 3)).macs == 9             # a subclass of a known layer
    count_macs.register(Mine, lambda layer, x, out: 2*out[0].numel()*3)
    assert summary(Mine(3, 3), torch.rand(2, 3)).macs == 18
    assert summary(Square(), torch.rand(2, 3)).macs == 3

def test_a_registered_block_has_a_row_beside_those_of_its_layers():
    class Attend(nn.Module):
        def __init__(self):
            super().__init__()
            self.q, self.k = nn.Linear(4, 4), nn.Linear(4, 4)
        def forward(self, x): return self.q(x)@self.k(x).mT
    count_macs.register(Attend, lambda layer, x, out: out[0].numel()*4)
    x = torch.rand(2, 5, 4)
    table = summary(Attend(), x)
    assert [(r.name, r.params, r.macs) for r in table] == [('', 0, 100), ('q', 20, 80), ('k', 20, 80)]
    assert table.macs*2 == torch_macs(lambda: Attend()(x))

def test_one_item_without_a_batch_is_refused():
    for layer, x in ((nn.Conv2d(1, 2, 3), torch.rand(1, 5, 5)), (nn.ConvTranspose1d(1, 2, 3), torch.rand(1, 5)), (nn.Linear(5, 2), torch.rand(5))):
        with pytest.raises(ValueError, match=rf'^count_macs: {type(layer).__name__} got one item.*x\[None\]'): summary(layer, x)
        assert not hooks(layer)

# --- rows
def test_the_lesson_cnn():
    table = summary(lesson_cnn(), torch.rand(3, 1, 28, 28))
    assert [r.name for r in table] == ['0.0', '0.1', '1.0', '1.1', '2.0', '2.1', '3.0', '3.1', '4', '5']
    assert (table.n_params, table.macs) == (5274, 50256) == (sum(r.params for r in table), sum(r.macs for r in table))

def test_numbers_are_for_one_item_whatever_the_batch():
    net = lesson_cnn(norm=nn.BatchNorm2d)
    tables = [summary(net, torch.rand(n, 1, 28, 28)) for n in (1, 2, 7)]
    assert tables[0] == tables[1] == tables[2]

def test_items_folded_into_the_batch_inside():
    class Fold(nn.Module):
        def __init__(self):
            super().__init__()
            self.lin = nn.Linear(4, 2)
        def forward(self, x): return self.lin(x.flatten(0, 1))
    table = summary(Fold(), torch.rand(3, 5, 4))
    assert table.macs == 5*2*4 and table[0].out == (2,)

def test_no_items_no_work():
    class Masked(nn.Module):
        def __init__(self):
            super().__init__()
            self.lin, self.scale = nn.Linear(4, 2), nn.ReLU()
        def forward(self, x): return self.lin(x[x[:,0]>9]).sum() + self.scale(x.sum())
    assert [r.macs for r in summary(Masked(), torch.rand(3, 4))] == [0, 0]

def test_shared_layers_and_shared_parameters():
    lin = nn.Linear(4, 4)
    table = summary(nn.Sequential(lin, nn.ReLU(), lin), torch.rand(2, 4))
    assert [(r.name, r.params, r.macs) for r in table] == [('0', 20, 16), ('1', 0, 0), ('0', 0, 16)] and table.n_params == 20
    tied = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    tied[1].weight = tied[0].weight
    table = summary(tied, torch.rand(2, 4))
    assert [r.params for r in table] == [20, 4] and table.n_params == 24 and table.macs == 32

@pytest.mark.parametrize('norm, act', [*product((None, nn.BatchNorm2d), (None, nn.SiLU))])
def test_a_module_that_computes_with_its_childrens_weights(norm, act):
    layer, x = deconv(3, 2, ks=5, norm=norm, act=act), torch.rand(4, 3, 6, 7)
    net = nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), layer, nn.Conv2d(2, 1, 1))
    table = summary(net, x)
    kinds = [o.__name__ for o in (norm, act) if o]
    assert [r.layer for r in table] == ['Conv2d', 'Deconv', *kinds, 'Conv2d']
    row = table[1]
    assert row.params == sum(p.numel() for p in layer[1].parameters()) and row.out == (2, 12, 14)
    assert row.macs*4 == torch_macs(lambda: F.conv_transpose2d(x, torch.rand(3, 2, 6, 6), stride=2, padding=2))
    assert table.n_params == sum(r.params for r in table) == sum(p.numel() for p in net.parameters())
    layer.fast = False
    plain = summary(net, x)
    assert [r.layer for r in plain] == ['Conv2d', 'Upsample', 'Conv2d', *kinds, 'Conv2d']
    assert plain.n_params == table.n_params and plain[2].macs == 12*14*2*3*25
    assert [r.field for r in plain[-1:]] == [r.field for r in table[-1:]] == [f'{float(receptive_field(plain_net(net), (6, 7))[-1].size):g}']
    assert all(r.field for r in table)

def plain_net(net): return nn.Sequential(net[0], nn.Sequential(*net[1]), net[2])

def test_an_autoencoder():
    model = ConvAutoencoder(latent=8)
    x = torch.rand(2, 1, 28, 28)
    table = summary(model, x)
    assert table.n_params == sum(r.params for r in table) and all(r.macs is not None and r.field for r in table)
    norms = sum(r.macs for r in table if 'Norm' in r.layer)
    done = torch_macs(lambda: model.eval()(x))/2      # a little more at the border, where deconv(…, 1) goes by phases
    assert table.macs - norms <= done < 1.01*(table.macs - norms)

def test_own_parameters_above_called_layers():
    class Biased(nn.Module):
        def __init__(self):
            super().__init__()
            self.shift, self.lin = nn.Parameter(torch.zeros(3)), nn.Linear(3, 3)
        def forward(self, x): return self.lin(x) + self.shift
    table = summary(nn.Sequential(Biased(), nn.ReLU()), torch.rand(2, 3))
    assert [(r.name, r.params) for r in table] == [('0', 3), ('0.lin', 12), ('1', 0)] and 'at least 9' in repr(table)

def test_libraries_that_go_past_their_children():
    attention = nn.MultiheadAttention(8, 2, batch_first=True)
    x = torch.rand(2, 5, 8)
    table = summary(attention, x, x, x)
    assert table.n_params == sum(r.params for r in table) and table[0].out == (5, 8) and 'at least' in repr(table)
    block = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    table = summary(block, x)
    assert table.n_params == sum(r.params for r in table) and not hooks(block)
    rnn = nn.LSTM(8, 4)
    table = summary(rnn, x)
    assert table[0].out == (5, 4) and table[0].macs is None and table[0].params == table.n_params

def test_parametrized_layers_keep_their_row():
    layer = torch.nn.utils.parametrizations.weight_norm(nn.Linear(4, 3, bias=False))
    table = summary(nn.Sequential(layer), torch.rand(2, 4))
    assert table.macs == 12 and table.n_params == 15 == sum(r.params for r in table)

def test_lazy_layers():
    net = nn.Sequential(nn.Flatten(), nn.LazyLinear(3))
    with record_layers(net) as table: net(torch.rand(2, 4, 5))
    assert table[-1] == ('1', 'Linear', (3,), 63, 60, '') and table.n_params == 63

def test_dicts_tuples_and_keywords():
    class Inner(nn.Module):
        def __init__(self):
            super().__init__()
            self.lin = nn.Linear(3, 2)
        def forward(self, batch, *, scale): return dict(out=[self.lin(batch['x'])*scale], n=3)
    class Outer(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.none = Inner(), Nothing()
        def forward(self, batch): return self.none() or self.inner(batch, scale=2.)
    class Nothing(nn.Module):
        def forward(self): return None
    table = summary(Outer(), dict(x=torch.rand(4, 3)))
    assert table == [('none', 'Nothing', (), 0, None, ''), ('inner.lin', 'Linear', (2,), 8, 6, '')]

# --- the table
def test_table_text():
    rows = [LayerRow('a', 'Conv2d', (4, 14, 14), 1234567, 7654321, '3×7'), LayerRow('b', 'ReLU', (), 0, 0, '')]
    lines = repr(LayerTable(rows, 1234567)).split('\n')
    assert lines[0].split() == list(LayerRow._fields) and lines[-1].split() == ['total', '1,234,567', '7,654,321']
    assert lines[1].split() == ['a', 'Conv2d', '4×14×14', '1,234,567', '7,654,321', '3×7']
    assert lines[0].index('macs') + 4 == lines[1].index('7,654,321') + 9 == lines[-1].index('7,654,321') + 9
    assert repr(LayerTable(rows[1:] + [rows[0]._replace(macs=None)])).endswith('at least 0')

def test_empty_table_says_why():
    net = nn.Linear(3, 2)
    with record_layers(net) as table: assert 'after the block' in repr(table)
    assert table == [] and table.n_params == 8 and 'model(xb)' in repr(table)
    with record_layers(net) as table: net.forward(torch.rand(2, 3))
    assert table == []

# --- fields
@pytest.mark.parametrize('seed', range(12))
def test_fields_are_those_of_lesson_08(seed):
    rng, c, layers = random.Random(seed), 1, []
    for _ in range(4):
        nf, k = rng.randint(1, 4), (rng.randint(1, 4), rng.randint(1, 3))
        layers += [nn.Conv2d(c, nf, k, stride=(rng.randint(1, 2), 1), padding=1, dilation=rng.randint(1, 2)),
                   rng.choice([nn.ReLU(inplace=True), nn.MaxPool2d(2, 1), nn.Upsample(scale_factor=2), nn.BatchNorm2d(nf), nn.Identity()])]
        c = nf
    net = nn.Sequential(nn.Sequential(*layers[:4]), *layers[4:], nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(c, 2))
    want = []
    for r in receptive_field(net, (29, 31)):
        a, b = r.size if isinstance(r.size, tuple) else (r.size,)*2
        a, b = (f'{round(float(o), 1):g}' for o in (a, b))
        want.append(a if a==b else f'{a}×{b}')
    assert [r.field for r in summary(net, torch.rand(2, 1, 29, 31))] == want

def test_a_field_holds_the_gradient():
    net = nn.Sequential(nn.Conv2d(1, 1, 3), nn.MaxPool2d(2), nn.Conv2d(1, 1, 3, dilation=2))
    side = int(summary(net, torch.rand(1, 1, 28, 28))[-1].field)
    top, left, bottom, right = field_box(net, 28, (3, 4))
    seen = effective_receptive_field(net, torch.rand(9, 1, 28, 28), (3, 4)).nonzero()
    assert side == bottom - top == right - left and (seen.amax(0) - seen.amin(0) < side).all()

def test_what_is_not_known_stays_unknown():
    class Roll(nn.Module):                                             # in place: the same tensor, other pixels
        def forward(self, x): return x.copy_(x.roll(5, -1))
    class Functional(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c = (nn.Conv2d(1, 1, 3) for _ in range(3))
        def forward(self, x): return self.c(F.relu(self.b(self.a(x))))
    class Both(nn.Module):
        def forward(self, x, y): return x + y
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.add, self.b = nn.Conv2d(1, 1, 3, padding=1), Both(), nn.Conv2d(1, 1, 3)
        def forward(self, x): return self.b(self.add(x, self.a(x)))
    class InPlace(nn.Module):                                          # as in torchvision's ResNet
        def __init__(self):
            super().__init__()
            self.a, self.b, self.act = nn.Conv2d(1, 1, 3, padding=1), nn.Conv2d(1, 1, 5, padding=2), nn.ReLU()
        def forward(self, x):
            y = self.a(x)
            y += self.b(x)
            return self.act(y)
    x = torch.rand(2, 1, 12, 12)
    fields = lambda net: [r.field for r in summary(net, x)]
    window.register(Both, lambda layer, n, axis: Window(n))            # must not help: one field cannot stand for two
    assert fields(nn.Sequential(nn.Conv2d(1, 1, 3), Roll(), nn.ReLU())) == ['3', '', '']
    assert fields(Functional()) == ['3', '5', '']
    assert fields(Two()) == ['3', '', '']
    assert fields(InPlace()) == ['3', '5', '']
    assert fields(nn.Sequential(Add(nn.Conv2d(1, 1, 3, padding=1)), nn.ReLU())) == ['3', '']
    assert fields(nn.Sequential(nn.Conv2d(1, 1, 3, padding=1, padding_mode='circular'), nn.ReLU())) == ['', '']
    assert [r.field for r in summary(nn.Sequential(nn.Linear(4, 3), nn.ReLU()), torch.rand(2, 4))] == ['', '']      # no pixels

def test_a_wrong_window_is_not_believed():
    class Crop(nn.Module):
        def forward(self, x): return x[:, :, 1:-1, 1:-1]
    window.register(Crop, lambda layer, n, axis: Window(n))            # says that it keeps the size
    assert [r.field for r in summary(nn.Sequential(Crop(), nn.ReLU()), torch.rand(1, 1, 9, 9))] == ['', '']

# --- nothing is left behind
@pytest.mark.parametrize('error', [RuntimeError, KeyboardInterrupt, ValueError])
def test_hooks_go_and_rows_stay_after_an_error(error):
    class Broken(nn.Module):
        def forward(self, x): raise error('no')
    net = nn.Sequential(nn.Linear(3, 2), nn.ReLU(), Broken())
    with pytest.raises(error), record_layers(net) as table: net(torch.rand(2, 3))
    assert [r.layer for r in table] == ['Linear', 'ReLU'] and table.n_params == 8 and not hooks(net)

def test_an_error_inside_the_block_may_be_caught():
    net = nn.Sequential(nn.Linear(3, 2), nn.ReLU())
    with record_layers(net) as table:
        with pytest.raises(RuntimeError): net(torch.rand(5, 4))
        net(torch.rand(2, 3))
    assert [(r.layer, r.macs) for r in table] == [('Linear', 6), ('ReLU', 0)]

def test_recording_changes_nothing():
    torch.manual_seed(0)
    net = lesson_cnn(norm=nn.BatchNorm2d)
    own = net[0].register_forward_hook(lambda *args: None)
    x = torch.rand(4, 1, 28, 28)
    def run(watch):
        torch.manual_seed(1)
        net.load_state_dict(start)
        net.zero_grad()
        if watch:
            with record_layers(net) as table: out = net(x)
            assert len(table) == 14
        else: out = net(x)
        out.square().sum().backward()
        return [out, *[p.grad.clone() for p in net.parameters()], *[b.clone() for b in net.buffers()]]
    start = {k: v.clone() for k, v in net.state_dict().items()}
    assert all(torch.equal(a, b) for a, b in zip(run(False), run(True)))
    assert hooks(net) == 1
    own.remove()

def test_no_tensor_is_kept():
    seen = []
    class Peek(nn.Module):
        def forward(self, x):
            seen.append(weakref.ref(x))
            return x*2
    net = nn.Sequential(nn.Linear(3, 3), Peek(), nn.Linear(3, 3))
    with torch.no_grad(), record_layers(net):
        net(torch.rand(2, 3))
        gc.collect()
        assert seen[0]() is None                                       # even inside the block

def test_summary_leaves_everything_as_it_was():
    class Counts(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer('calls', torch.zeros(()))
            self.register_buffer('other', torch.zeros(2), persistent=False)
        def forward(self, x):
            self.calls += 1
            self.other = self.other + 1                                # a new tensor in the old one's place
            return x + torch.rand(1)
    net = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(), Counts())
    net[1].eval()
    state, modes = {k: v.clone() for k, v in net.state_dict().items()}, [m.training for m in net.modules()]
    rng = torch.get_rng_state()
    for x in (torch.rand(3, 4), torch.rand(3, 5)):
        rng = torch.get_rng_state()
        try: summary(net, x)
        except ValueError as e: assert 'does not take' in str(e)
        assert torch.equal(rng, torch.get_rng_state()) and modes == [m.training for m in net.modules()] and not hooks(net)
        assert all(torch.equal(v, net.state_dict()[k]) for k, v in state.items()) and net[3].other.sum() == 0
        assert all(p.grad is None for p in net.parameters()) and torch.is_grad_enabled()

def test_meta_and_inference_mode():
    with torch.device('meta'): net, x = lesson_cnn(norm=nn.BatchNorm2d), torch.empty(2, 1, 28, 28)
    want = summary(lesson_cnn(norm=nn.BatchNorm2d), torch.rand(2, 1, 28, 28))
    assert summary(net, x) == want
    net = lesson_cnn(norm=nn.BatchNorm2d).eval()
    with torch.inference_mode(), record_layers(net) as table: net(torch.rand(2, 1, 28, 28))
    assert table == want

# --- errors
@pytest.mark.parametrize('args, exc, words', [
    ((nn.Linear, torch.rand(2, 3)), TypeError, 'takes an nn.Module, got type'), ((nn.Linear(3, 2),), ValueError, 'got nothing'),
    ((nn.Linear(3, 2), torch.rand(0, 3)), ValueError, r'got float32 \[0,3\]'), ((nn.Linear(3, 2), 'x'), ValueError, "got str 'x'"),
    ((nn.Linear(3, 2), torch.rand(2, 4)), ValueError, r'does not take float32 \[2,4\]\. torch says'),
    ((nn.Sequential(nn.Flatten(), nn.Linear(3, 2)), torch.rand(2, 4)), ValueError, r"Up to '0', Flatten, all went well: \[N,4\]\. torch says"),
    ((nn.Conv2d(1, 2, 3), torch.zeros(2, 1, 5, 5, dtype=torch.uint8)), ValueError, r'uint8 \[2,1,5,5\]')])
def test_errors(args, exc, words):
    with pytest.raises(exc, match=f'^summary: .*{words}'): summary(*args)

def test_record_layers_wants_a_module():
    with pytest.raises(TypeError, match='^record_layers: takes an nn.Module'), record_layers(lambda x: x): pass
