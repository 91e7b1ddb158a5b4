"The networks of the lesson *cnn* on many sizes and options: shapes, counts, gradients, and the errors of what does not fit."
import copy, inspect, pickle
from functools import partial
from itertools import product

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from miniai import cnn as M
from miniai.cnn import FixedFlatten, n_params, simple_cnn
from miniai.conv import conv
from miniai.core import describe

def course_cnn(): return nn.Sequential(conv(1, 4), conv(4, 8), conv(8, 16), conv(16, 16), conv(16, 10, act=False), nn.Flatten())

# --- n_params
def test_count_by_hand():
    assert n_params(nn.Linear(5, 3)) == 5*3 + 3 and n_params(nn.Conv2d(4, 6, (3, 2), groups=2, bias=False)) == 6*2*3*2
    assert n_params(nn.BatchNorm2d(7)) == 14                            # its running means are no parameters
    assert n_params(nn.ReLU()) == 0 and n_params(course_cnn()) == 5_274
    assert type(n_params(nn.Linear(5, 3))) is int

def test_count_frozen_shared_meta():
    m = nn.Sequential(nn.Linear(5, 3), nn.Linear(3, 2))
    m[0].weight.requires_grad_(False)
    assert (n_params(m), n_params(m, trainable=True)) == (26, 11)
    assert n_params(nn.Sequential(m, m[1])) == 26
    with torch.device('meta'): assert n_params(nn.Linear(100_000, 100_000, bias=False)) == 10**10

@pytest.mark.parametrize('bad', [torch.rand(3), [nn.Linear(1, 1)], nn.Linear, None, 3])
def test_count_errors(bad):
    with pytest.raises(TypeError, match='^n_params: takes a module'): n_params(bad)

# --- FixedFlatten
def test_flatten_takes_one_size():
    f, x = FixedFlatten((2, 3), 4), torch.rand(5, 7, 2, 3)
    assert torch.equal(f(x), x.flatten(1)) and isinstance(f, nn.Flatten) and not list(f.state_dict())
    assert 'size=(2, 3)' in repr(f)
    for shape in ((5, 7, 3, 2), (5, 7, 2, 2), (5, 7, 2), (2, 3), (5, 7, 2, 3, 1)):
        with pytest.raises(ValueError, match=r'^FixedFlatten: takes maps of 2×3, got float32 .*from 5×9 to 8×12 fit'): f(torch.rand(shape))

# --- simple_cnn: shapes
grid = list(product(['stride', 'max'], [(4,), (3, 5), (2, 3, 4)], [1, 3], [1, 3, 5]))

def run(m, x):
    "`m(x)`, after a backward pass that must reach every parameter."
    y = m(x)
    y.square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in m.parameters())
    return y

@pytest.mark.parametrize('down, widths, ni, ks', grid)
def test_flatten_fits_up_to_a_power_of_two(down, widths, ni, ks):
    most, m = 2**(len(widths)+1), simple_cnn(widths, ni, n_out=6, ks=ks, down=down)
    for h, w in ((1, 1), (most, most), (most//2 + 1, most), (1, most)): assert m(torch.rand(2, ni, h, w)).shape == (2, 6)
    for h, w in ((most+1, 1), (1, most+1)):
        with pytest.raises(ValueError, match=f'from 1×1 to {most}×{most} fit'): m(torch.rand(2, ni, h, w))

@pytest.mark.parametrize('down, widths, ni, ks', grid)
def test_pool_takes_any_size(down, widths, ni, ks):
    m = simple_cnn(widths, ni, n_out=6, ks=ks, down=down, head='pool')
    for h, w in ((1, 1), (5, 9), (28, 28), (33, 50)): assert m(torch.rand(2, ni, h, w)).shape == (2, 6)

@pytest.mark.parametrize('down, widths, ni, ks', grid)
@pytest.mark.parametrize('size', [1, 9, 28, (12, 7), [20, 33]])
def test_dense_takes_what_shrinks_to_the_same_maps(down, widths, ni, ks, size):
    m, k = simple_cnn(widths, ni, n_out=6, ks=ks, down=down, head='dense', size=size), 2**len(widths)
    h, w = size if not isinstance(size, int) else (size, size)
    up = lambda n: -(-n//k)*k                                # the largest image with as many places
    for shape in ((h, w), (up(h), up(w)), (up(h)-k+1, up(w)-k+1)): assert m(torch.rand(2, ni, *shape)).shape == (2, 6)
    fits = f'from {up(h)-k+1}×{up(w)-k+1} to {up(h)}×{up(w)} fit'
    with pytest.raises(ValueError, match=fits): m(torch.rand(2, ni, up(h)+1, up(w)))
    with pytest.raises(ValueError, match=fits): m(torch.rand(2, ni, up(h), up(w)+1))

@pytest.mark.parametrize('down', ['stride', 'max'])
@pytest.mark.parametrize('head', ['flatten', 'pool', 'dense'])
@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
def test_gradients_dtypes_and_empty_batches(down, head, dtype):
    torch.manual_seed(0)
    m, x = simple_cnn((4, 6), head=head, down=down, size=8, act=nn.SiLU).to(dtype), torch.rand(3, 1, 8, 8, dtype=dtype, requires_grad=True)
    assert run(m, x).dtype == dtype and x.grad.abs().max() > 0
    assert m(x[:0]).shape == (0, 10)

def test_gradcheck():
    torch.manual_seed(0)
    for head in ('flatten', 'pool', 'dense'):
        m = simple_cnn((2, 3), n_out=2, head=head, act=nn.Tanh, size=5).double()
        assert torch.autograd.gradcheck(m, torch.rand(2, 1, 5, 5, dtype=torch.float64, requires_grad=True))

def test_meta_device():
    with torch.device('meta'): m, x = simple_cnn(head='pool'), torch.rand(2, 1, 28, 28)
    assert m(x).shape == (2, 10) and m(x).device.type == 'meta'

# --- simple_cnn: what it is made of
def test_default_is_the_course_network():
    a, b = simple_cnn(), course_cnn()
    assert list(inspect.signature(simple_cnn).parameters)[:3] == ['widths', 'ni', 'n_out']
    b.load_state_dict(a.state_dict())
    x = torch.rand(2, 1, 28, 28)
    assert torch.equal(a(x), b(x)) and isinstance(a, nn.Sequential)

def test_counts_of_the_heads():
    assert [n_params(simple_cnn(head=o)) for o in ('flatten', 'pool', 'dense')] == [5_274, 3_824 + 170, 3_824 + 650]
    assert n_params(simple_cnn(down='max')) == 5_274

def test_norm_and_act_reach_every_block_but_the_last():
    m = simple_cnn((4, 8), norm=nn.BatchNorm2d, act=partial(nn.LeakyReLU, 0.3))
    kinds = [type(o) for o in m.modules()]
    assert kinds.count(nn.BatchNorm2d) == kinds.count(nn.LeakyReLU) == 2 and nn.ReLU not in kinds
    assert type(m[2]) is nn.Conv2d and m[2].bias is not None and m[0][0].bias is None
    assert m(torch.rand(2, 1, 8, 8)).min() < 0

def test_pool_head_is_a_mean():
    torch.manual_seed(0)
    m, x = simple_cnn((3, 5), head='pool'), torch.rand(2, 1, 13, 18)
    assert torch.allclose(m(x), m[-1](m[:2](x).mean((2, 3))), atol=1e-6)

def test_max_pooling_is_what_it_says():
    torch.manual_seed(0)
    m, x = simple_cnn((3,), head='pool', down='max'), torch.rand(2, 1, 6, 8)
    full = F.conv2d(x, m[0][0].weight, m[0][0].bias, padding=1).relu()
    assert torch.allclose(m[:2](x), full.view(2, 3, 3, 2, 4, 2).amax((3, 5)), atol=1e-6)

# --- simple_cnn: wrong arguments
@pytest.mark.parametrize('kw, exc, words', [
    (dict(widths=()), ValueError, 'widths is empty'), (dict(widths=(4, 0)), ValueError, 'widths must be at least 1'),
    (dict(widths=(4, 8.)), TypeError, 'widths must be a whole number'), (dict(widths='48'), TypeError, 'widths must be'),
    (dict(ni=0), ValueError, 'ni must be'), (dict(n_out=1.5), TypeError, 'n_out must be'), (dict(ks=2), ValueError, 'ks must be odd'),
    (dict(ks=(3, 3)), TypeError, 'ks must be'), (dict(head='pol'), ValueError, "head must be one of .*Did you mean 'pool'"),
    (dict(head=None), ValueError, 'head must be'), (dict(down='avg'), ValueError, 'down must be one of stride, max'),
    (dict(head='dense', size=0), ValueError, 'size must be at least 1'), (dict(head='dense', size=28.), TypeError, 'size must be'),
    (dict(head='dense', size=(1, 28, 28)), ValueError, r'size must be one whole number or \(rows, columns\)')])
def test_argument_errors(kw, exc, words):
    with pytest.raises(exc, match=f'^simple_cnn: .*{words}'): simple_cnn(**kw)

@pytest.mark.parametrize('kw, words', [(dict(act=nn.ReLU()), 'act must be a layer class'), (dict(act='relu'), 'act must be'),
                                       (dict(norm=nn.BatchNorm2d(4)), 'norm must be a layer class')])
def test_layer_errors_come_from_conv(kw, words):
    with pytest.raises(TypeError, match=f'^conv: {words}'): simple_cnn(**kw)

def test_one_width_is_enough(): assert simple_cnn(8)(torch.rand(2, 1, 4, 4)).shape == (2, 10)

# --- simple_cnn: wrong images
x = torch.rand(4, 1, 16, 16)
@pytest.mark.parametrize('bad, exc, words', [
    (x[0], ValueError, r'\[N,C,H,W\], got float32 \[1,16,16\].*x\[None\]'), (x[:,0], ValueError, r'got float32 \[4,16,16\]'),
    (x[0,0], ValueError, r'got float32 \[16,16\]'), (x[None], ValueError, r'got float32 \[1,4,1,16,16\]'),
    (x.expand(-1, 3, -1, -1), ValueError, r'takes 1 channel, x has 3: \[4,3,16,16\].*ni=3'),
    (x.permute(0, 2, 3, 1), ValueError, r'permute\(0, 3, 1, 2\)'), ((x*255).byte(), TypeError, r'uint8.*x\.float\(\)/255'),
    (x.long(), TypeError, 'int64'), (x.double(), TypeError, r'one dtype.*x\.to\(weight\.dtype\)'), (x.half(), TypeError, 'one dtype'),
    (x.to('meta'), ValueError, 'x is on meta, weight on cpu.*to_device'), (x.numpy(), TypeError, 'numpy'), (None, TypeError, 'got NoneType'),
    ([x], TypeError, 'x must be a tensor')])
@pytest.mark.parametrize('down', ['stride', 'max'])
def test_image_errors(bad, exc, words, down):
    with pytest.raises(exc, match=f'^simple_cnn: .*{words}'): simple_cnn(down=down)(bad)

def test_model_elsewhere():
    with pytest.raises(ValueError, match='^simple_cnn: x is on cpu, weight on meta'): simple_cnn().to('meta')(x)

def test_check_survives_copies_and_files_but_not_slices():
    m = simple_cnn((4, 8))
    for o in (copy.deepcopy(m), pickle.loads(pickle.dumps(m)), m.eval()):
        with pytest.raises(ValueError, match='^simple_cnn: '): o(x[0])
    assert m[1:](m[:1](x[...,:8,:8])).shape == (4, 10)
    assert m(input=x[...,:8,:8]).shape == (4, 10)

def test_first_layer_can_be_exchanged():
    m, small = simple_cnn((4, 8)), x[...,:8,:8]
    m[0] = conv(3, 4, ks=5)
    assert m(small.expand(-1, 3, -1, -1)).shape == (4, 10)
    with pytest.raises(ValueError, match='takes 3 channels, x has 1'): m(small)
    m[0] = nn.Conv2d(4, 4, 3, 2, padding='valid', groups=2)
    assert m(small.expand(-1, 4, -1, -1)).shape == (4, 10)
    m[0] = nn.Upsample(scale_factor=0.5)                     # no convolution: nothing to compare with
    m[1] = conv(1, 8)
    assert m(small).shape == (4, 10)

def test_autocast_and_compile():
    m = simple_cnn()
    with torch.autocast('cpu', dtype=torch.bfloat16): y = m(x)
    assert y.dtype == torch.bfloat16 and torch.allclose(y.float(), m(x), atol=0.05)
    compiled = torch.compile(m, backend='eager', fullgraph=True)       # the check breaks no graph
    assert torch.allclose(compiled(x), m(x), atol=1e-6)

def test_five_of_nine_weights_of_the_last_block_are_idle():
    torch.manual_seed(0)
    m = simple_cnn()
    run(m, torch.rand(8, 1, 28, 28))
    grad = m[4].weight.grad
    assert grad[:,:,0].abs().max() == 0 and grad[:,:,:,0].abs().max() == 0 and grad[:,:,1:,1:].abs().max() > 0

# --- the lesson's exercises
def test_checks_reject_the_empty_stubs_and_accept_the_solutions():
    import copy, json, re
    from pathlib import Path
    nb = Path(__file__).parents[1]/'nbs/13_cnn.ipynb'
    cells = [''.join(c['source']) for c in json.loads(nb.read_text(encoding='utf-8'))['cells'] if c['cell_type']=='code']
    stubs = [i for i, o in enumerate(cells) if re.match(r'# \d\. your turn', o)]
    assert len(stubs) >= 3
    for i in stubs:
        space = dict(copy=copy, torch=torch, nn=nn, F=F, n_params=n_params, simple_cnn=simple_cnn, describe=describe)
        stub, check, solution = cells[i:i+3]
        exec(stub, space)
        exec(check, space)
        name, = re.findall(r'^def (\w+)', stub, re.M)
        tests, = re.findall(r'^def (check_\w+)', check, re.M)
        with pytest.raises(AssertionError, match='should return'): space[tests](space[name])
        exec(solution, space)
        assert f'{tests}({name})' in solution

# --- what the lesson says about shifts
def test_strided_and_pooled_blocks_follow_even_shifts_only():
    torch.manual_seed(0)
    x = torch.randint(0, 5, (1, 1, 32, 32)).float()                     # whole numbers: sums without rounding
    def shift(t, d): return F.pad(t, (d, -d))
    for down in ('stride', 'max'):
        block = simple_cnn((3,), down=down, head='pool')[:-3]
        with torch.no_grad():
            for p in block.parameters(): p.copy_(torch.randint(-3, 4, p.shape).float())
            old = block(x)
            for d in (1, 2, 3, 4):
                new = block(shift(x, d))
                hits = [k for k in range(d + 1) if torch.equal(new[...,4:-4,4:-4], shift(old, k)[...,4:-4,4:-4])]
                assert hits == ([d//2] if d%2==0 else [])

def test_mean_head_forgets_places_that_a_dense_head_keeps():
    torch.manual_seed(0)
    maps = torch.rand(2, 5, 7, 7)
    for head, same in (('pool', True), ('dense', False)):
        m = simple_cnn((5,), head=head, size=14)[1:]
        assert torch.allclose(m(maps), m(maps.roll(3, -1)), atol=1e-6) == same

def test_handles_of_the_module():
    assert set(M.__all__) == {'n_params', 'FixedFlatten', 'simple_cnn'}
