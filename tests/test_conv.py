"Convolutions against torch on random shapes, the errors of their guard, and the block."
import inspect, random
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from miniai import conv as M
from miniai.conv import apply_kernel, check_conv, conv, conv2d_loop, conv_out_size, needs_bias

def cases(n, seed=0):
    "Random arguments: shapes, strides, paddings, dilations, groups; ints and pairs; only those in which a window fits."
    rng, res = random.Random(seed), []
    either = lambda lo, hi: rng.choice([rng.randint(lo, hi), (rng.randint(lo, hi), rng.randint(lo, hi))])
    while len(res)<n:
        groups, ks = rng.choice([1, 1, 2, 3]), (rng.randint(1, 4), rng.randint(1, 4))
        c, nf, size = groups*rng.randint(1, 2), groups*rng.randint(1, 3), (rng.randint(1, 9), rng.randint(1, 9))
        kw = dict(stride=either(1, 3), padding=either(0, 2), dilation=either(1, 2), groups=groups)
        pad, dil = [o if isinstance(o, tuple) else (o, o) for o in (kw['padding'], kw['dilation'])]
        if all(d*(k-1) < n+2*p for n, k, p, d in zip(size, ks, pad, dil)):
            res.append(((rng.randint(1, 3), c, *size), (nf, c//groups, *ks), rng.random()<.5, kw))
    return res

def tensors(shape, wshape, has_bias, dtype=torch.float32):
    g = torch.Generator().manual_seed(0)
    make = lambda *s: torch.randn(*s, generator=g, dtype=torch.float64).to(dtype)
    return make(*shape), make(*wshape), make(wshape[0]) if has_bias else None

# --- conv_out_size
def test_out_size_equals_torch():
    rng = random.Random(1)
    for _ in range(500):
        n, ks, s, p, d = rng.randint(1, 60), rng.randint(1, 9), rng.randint(1, 5), rng.randint(0, 5), rng.randint(1, 4)
        try: want = F.conv1d(torch.zeros(1, 1, n), torch.zeros(1, 1, ks), None, s, p, d).shape[-1]
        except RuntimeError: want = None
        if want is None:
            with pytest.raises(ValueError, match='spans'): conv_out_size(n, ks, s, p, d)
        else: assert conv_out_size(n, ks, s, p, d) == want

@pytest.mark.parametrize('args, exc, words', [
    ((2, 3), ValueError, 'spans 3 pixels.*only 2'), ((5, 3, 0), ValueError, 'stride must be at least 1'),
    ((5, 3, 1, 0, 0), ValueError, 'dilation must be at least 1'), ((5, 3, 1, -1), ValueError, 'padding must be at least 0'),
    ((0, 3), ValueError, 'n must be at least 1'), ((5, 0), ValueError, 'ks must be at least 1'),
    ((5., 3), TypeError, 'n must be a whole number'), ((5, 3.), TypeError, 'ks must be'), ((5, 3, 1.5), TypeError, 'stride must be'),
    ((5, 3, True), TypeError, 'stride must be')])
def test_out_size_errors(args, exc, words):
    with pytest.raises(exc, match=f'^conv_out_size: .*{words}'): conv_out_size(*args)

def test_out_size_advice_helps():
    for n in range(1, 6):
        for ks in range(1, 8):
            for d in (1, 2, 3):
                assert conv_out_size(n, ks, padding=ks//2*d, dilation=d) >= 1

# --- apply_kernel
def test_apply_kernel_is_one_output_of_conv2d():
    im, k = torch.rand(7, 9), torch.randn(3, 5)
    want = F.conv2d(im[None,None], k[None,None])[0,0]
    got = torch.tensor([[apply_kernel(im, k, i, j) for j in range(2, 7)] for i in range(1, 6)])
    assert torch.allclose(got, want, atol=1e-5)

@pytest.mark.parametrize('row, col', [(0, 3), (6, 3), (3, 0), (3, 8)])
def test_apply_kernel_at_the_border(row, col):
    with pytest.raises(ValueError, match='leaves the image'): apply_kernel(torch.rand(7, 9), torch.ones(3, 3), row, col)

def test_apply_kernel_errors():
    im, k = torch.rand(7, 9), torch.ones(3, 3)
    with pytest.raises(ValueError, match='no centre'): apply_kernel(im, torch.ones(2, 3), 3, 3)
    with pytest.raises(ValueError, match='leaves the image'): apply_kernel(im, torch.ones(9, 9), 3, 3)
    with pytest.raises(ValueError, match=r'x\[0,0\]'): apply_kernel(im[None], k, 3, 3)
    with pytest.raises(ValueError, match='row must be at least 0'): apply_kernel(im, k, -1, 3)
    with pytest.raises(TypeError, match='col must be'): apply_kernel(im, k, 3, 3.)
    with pytest.raises(TypeError, match='kernel must be'): apply_kernel(im, [[1]], 3, 3)

# --- conv2d_loop
@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
@pytest.mark.parametrize('shape, wshape, has_bias, kw', cases(80))
def test_loop_equals_torch(shape, wshape, has_bias, kw, dtype):
    x, w, b = tensors(shape, wshape, has_bias, dtype)
    before = x.clone()
    got, want = conv2d_loop(x, w, b, **kw), F.conv2d(x, w, b, **kw)
    assert got.dtype == dtype and got.shape == want.shape
    assert torch.allclose(got, want, atol=1e-5 if dtype==torch.float32 else 1e-12)
    assert torch.equal(x, before)
    assert tuple(got.shape[2:]) == check_conv('test', x, w, b, **kw)[3]

def test_loop_empty_batch():
    for kw in (dict(), dict(stride=2, padding=1)):
        got = conv2d_loop(torch.rand(0, 2, 5, 6), torch.rand(3, 2, 3, 2), torch.rand(3), **kw)
        assert got.shape == F.conv2d(torch.rand(0, 2, 5, 6), torch.rand(3, 2, 3, 2), torch.rand(3), **kw).shape and got.shape[0] == 0

def test_loop_takes_lists_and_strided_views():
    x, w = torch.rand(6, 5, 3, 2).permute(3, 2, 0, 1), torch.rand(4, 3, 3, 3).transpose(2, 3)
    assert torch.allclose(conv2d_loop(x, w, stride=[1, 2], padding=[1, 0]), F.conv2d(x, w, stride=[1, 2], padding=[1, 0]), atol=1e-5)

def test_loop_gradients():
    x, w, b = [o.requires_grad_() for o in tensors((2, 4, 5, 4), (2, 2, 3, 2), True, torch.float64)]
    f = lambda x, w, b: conv2d_loop(x, w, b, stride=(2, 1), padding=(1, 0), groups=2)
    assert torch.autograd.gradcheck(f, (x, w, b))

@pytest.mark.parametrize('shape, wshape, kw', [((2, 3, 8, 7), (5, 3, 3, 3), dict(stride=2, padding=1)),
                                               ((1, 4, 9, 9), (6, 2, 3, 3), dict(groups=2, dilation=2)), ((2, 1, 5, 6), (1, 1, 2, 2), {})])
def test_transposed_is_the_gradient(shape, wshape, kw):
    x, w, _ = tensors(shape, wshape, False, torch.float64)
    y = F.conv2d(x.requires_grad_(), w, **kw)
    g = torch.randn_like(y)
    y.backward(g)
    short = F.conv_transpose2d(g, w, **kw).shape
    extra = [a-b for a, b in zip(x.shape[2:], short[2:])]
    assert torch.allclose(x.grad, F.conv_transpose2d(g, w, output_padding=extra, **kw))

# --- the guard
x, w = torch.rand(4, 1, 8, 8), torch.rand(6, 1, 3, 3)
bad = [
    ((x[0], w), {}, ValueError, r'\[N,C,H,W\], got float32 \[1,8,8\].*x\[None\]'),
    ((x[0,0], w), {}, ValueError, r'im\[None,None\]'),
    ((x, w[0,0]), {}, ValueError, r'\[nf,ni,kh,kw\].*k\[None,None\]'),
    ((x.numpy(), w), {}, TypeError, 'x must be a tensor .*numpy'),
    ((x, w.tolist()), {}, TypeError, 'weight must be a tensor'),
    ((torch.rand(4, 3, 8, 8), w), {}, ValueError, r'weight \[6,1,3,3\] takes 1 channel, x has 3: \[4,3,8,8\] \(N,C,H,W\)\. Build the first '
                                                  r'layer with ni=3, or grey the images: x\.mean\(1, keepdim=True\)\.$'),
    ((x, torch.rand(6, 3, 3, 3)), {}, ValueError, 'takes 3 channels, x has 1: .*ni=1.*expand'),
    ((torch.rand(4, 5, 8, 8), torch.rand(6, 3, 3, 3)), {}, ValueError, 'ni=5'),
    ((torch.rand(4, 8, 9, 3), torch.rand(6, 3, 3, 3)), {}, ValueError, r'permute\(0, 3, 1, 2\)'),
    ((torch.rand(4, 4, 8, 8), torch.rand(6, 3, 3, 3)), dict(groups=2), ValueError, 'takes 6 channels in 2 groups, x has 4'),
    ((x, torch.rand(6, 1, 9, 3)), {}, ValueError, 'spans 9 pixels.*only 8'),
    ((x, w), dict(dilation=4), ValueError, 'spans 9 pixels'),
    ((x, w), dict(stride=0), ValueError, 'stride must be at least 1'),
    ((x, w), dict(stride=(1, 0)), ValueError, 'stride must be at least 1'),
    ((x, w), dict(dilation=0), ValueError, 'dilation must be at least 1'),
    ((x, w), dict(padding=-1), ValueError, 'padding must be at least 0'),
    ((x, w), dict(stride=(1, 2, 3)), ValueError, r'stride must be one whole number or \(rows, columns\)'),
    ((x, w), dict(stride=1.5), TypeError, 'stride must be a whole number'),
    ((x, w), dict(padding=(1, 1.)), TypeError, 'padding must be a whole number'),
    ((x, w), dict(padding='same'), TypeError, 'padding must be a whole number'),
    ((x, w), dict(dilation=None), TypeError, 'dilation must be a whole number'),
    ((x, w), dict(groups=1.), TypeError, 'groups must be a whole number'),
    ((x, w), dict(groups=0), ValueError, 'groups must be at least 1'),
    ((torch.rand(4, 4, 8, 8), torch.rand(8, 2, 3, 3)), dict(groups=3), ValueError, 'groups=3 must divide.*4 and 8'),
    ((torch.rand(4, 4, 8, 8), torch.rand(3, 2, 3, 3)), dict(groups=2), ValueError, 'groups=2 must divide.*4 and 3'),
    (((x*255).byte(), w), {}, TypeError, r'got uint8 .*x\.float\(\)/255'),
    ((x.long(), w), {}, TypeError, 'got int64'),
    ((x, w.long()), {}, TypeError, r'weight\.float\(\)'),
    ((x.double(), w), {}, TypeError, r'one dtype.*float64.*float32.*x\.to\(weight\.dtype\)'),
    ((x, w, torch.zeros(6).double()), {}, TypeError, 'x and bias must have one dtype'),
    ((x.to('meta'), w), {}, ValueError, r'x is on meta, weight on cpu.*to_device'),
    ((x, w, torch.zeros(6, device='meta')), {}, ValueError, 'bias on meta'),
    ((x, w, torch.zeros(5)), {}, ValueError, 'each of the 6 kernels'),
    ((x, w, torch.zeros(6, 1)), {}, ValueError, 'bias must be'),
    ((x, torch.rand(0, 1, 3, 3)), {}, ValueError, 'must not be empty'),
    ((x[:,:0], torch.rand(6, 0, 3, 3)), {}, ValueError, 'must not be empty'),
    ((x[:,:,:0], w), {}, ValueError, 'n must be at least 1'),
]
@pytest.mark.parametrize('args, kw, exc, words', bad)
def test_guard(args, kw, exc, words):
    with pytest.raises(exc, match='^conv2d_loop: ') as e: conv2d_loop(*args, **kw)
    assert e.match(words)
    with pytest.raises(exc, match='^mine: '): check_conv('mine', *args, **kw)

@pytest.mark.parametrize('size, ni, last', [
    ((4, 28, 28, 1), 1, True), ((4, 8, 9, 3), 3, True), ((4, 427, 640, 3), 3, True),     # few channels behind a large image
    ((4, 14, 14, 32), 32, True),                                                         # many, behind a square
    ((4, 3, 28, 28), 28, False), ((4, 1, 28, 28), 28, False), ((4, 3, 28, 1), 1, False), # 1 and 3 are channels where they stand
    ((4, 16, 4, 4), 4, False), ((4, 8, 32, 32), 32, False), ((4, 16, 8, 12), 12, False), # a width that happens to be ni
    ((4, 5, 8, 8), 3, False)])
def test_channels_last_is_said_only_where_sizes_say_so(size, ni, last):
    with pytest.raises(ValueError, match='takes') as e: check_conv('f', torch.rand(size), torch.rand(2, ni, 1, 1))
    assert ('permute' in str(e.value)) == last

def test_a_right_call_makes_no_words(monkeypatch):
    for o in ('describe', 'check_tensor', 'check_int'): monkeypatch.setattr(M, o, None)          # any use would raise
    conv_args = torch.rand(2, 4, 29, 27), torch.rand(6, 2, 3, 3), torch.rand(6)
    M._grid.cache_clear()
    monkeypatch.setattr(M, 'conv_out_size', lambda *o, who: 5)
    assert check_conv('f', *conv_args, (2, 1), 1, 1, 2) == ((2, 1), (1, 1), (1, 1), (5, 5))
    M._grid.cache_clear()

def test_sizes_are_kept_but_not_for_ever():
    for n in range(1, 1100): check_conv('f', torch.rand(1, 1, n, 3, device='meta'), torch.rand(1, 1, 1, 1, device='meta'))
    assert M._grid.cache_info().currsize <= M._grid.cache_info().maxsize <= 1000

def test_guard_on_another_device():
    for dev in [d for d, ok in (('cuda', torch.cuda.is_available()), ('mps', torch.backends.mps.is_available())) if ok]:
        with pytest.raises(ValueError, match=f'x is on {dev}'): conv2d_loop(x.to(dev), w)
        assert torch.allclose(conv2d_loop(x.to(dev), w.to(dev)).cpu(), F.conv2d(x, w), atol=1e-4)

# --- the block
def test_block_as_in_courses():
    assert list(inspect.signature(conv).parameters)[:5] == ['ni', 'nf', 'ks', 'stride', 'act']
    net = nn.Sequential(conv(1, 4), conv(4, 8), conv(8, 16), conv(16, 16), conv(16, 10, act=False), nn.Flatten())
    assert net(torch.rand(2, 1, 28, 28)).shape == (2, 10)
    assert conv(1, 8, 5, 1, False)(torch.rand(2, 1, 9, 7)).shape == (2, 8, 9, 7)

@pytest.mark.parametrize('ks', [1, 3, 5, 7])
@pytest.mark.parametrize('stride', [1, 2, 3])
def test_block_shapes(ks, stride):
    for h, w in ((28, 28), (7, 10), (1, 5)):
        assert conv(2, 3, ks, stride)(torch.rand(2, 2, h, w)).shape == (2, 3, -(-h//stride), -(-w//stride))

def test_block_act():
    kinds = lambda m: [type(o) for o in m]
    assert kinds(conv(1, 2)) == [nn.Conv2d, nn.ReLU] == kinds(conv(1, 2, act=nn.ReLU))
    assert kinds(conv(1, 2, act=nn.SiLU)) == [nn.Conv2d, nn.SiLU]
    assert conv(1, 2, act=partial(nn.LeakyReLU, 0.3))[1].negative_slope == 0.3
    assert type(conv(1, 2, act=lambda: nn.GELU())[1]) is nn.GELU
    assert all(type(conv(1, 2, act=o)) is nn.Conv2d for o in (False, None))
    a = conv(1, 2, act=nn.PReLU)
    assert a[1] is not conv(1, 2, act=nn.PReLU)[1]

def test_block_norm_and_bias():
    full = conv(1, 2, norm=nn.BatchNorm2d)
    assert [type(o) for o in full] == [nn.Conv2d, nn.BatchNorm2d, nn.ReLU] and full[0].bias is None
    assert [type(o) for o in conv(1, 2, act=None, norm=nn.InstanceNorm2d)] == [nn.Conv2d, nn.InstanceNorm2d]
    assert conv(1, 2)[0].bias is not None and conv(1, 2, norm=False)[0].bias is not None
    assert conv(1, 2, bias=False)[0].bias is None and conv(1, 2, norm=nn.BatchNorm2d, bias=True)[0].bias is not None
    assert conv(1, 8, norm=partial(nn.GroupNorm, 4))[1].num_channels == 8

batch_norms = [nn.BatchNorm2d, nn.SyncBatchNorm, nn.LazyBatchNorm2d, partial(nn.BatchNorm2d, eps=1e-3), lambda nf: nn.BatchNorm2d(nf)]
other_norms = [partial(nn.GroupNorm, 4), partial(nn.GroupNorm, 1), nn.InstanceNorm2d, partial(nn.LocalResponseNorm, alpha=0.5),
               lambda nf: nn.LayerNorm([nf, 14, 14]), lambda nf: nn.Identity()]

@pytest.mark.parametrize('norm', batch_norms)
def test_a_batch_norm_replaces_the_bias(norm):
    assert conv(1, 8, norm=norm)[0].bias is None and not needs_bias(norm(8))
    assert conv(1, 8, norm=norm, bias=True)[0].bias is not None

@pytest.mark.parametrize('norm', other_norms)
def test_other_norms_keep_the_bias(norm):
    assert conv(1, 8, norm=norm)[0].bias is not None and needs_bias(norm(8)) and needs_bias(None)
    assert conv(1, 8, norm=norm, bias=False)[0].bias is None

def test_what_a_bias_does_before_a_norm():
    torch.manual_seed(0)
    x, bias = torch.randn(16, 1, 28, 28), torch.linspace(-3, 3, 8)
    def moved(norm):
        "How far the largest output moves when the convolution gets a bias."
        block = conv(1, 8, act=None, norm=norm, bias=True)
        outs = []
        for b in (torch.zeros(8), bias):
            block[0].bias.data = b
            outs.append(block(x))
        return (outs[0]-outs[1]).abs().max().item()
    assert moved(nn.BatchNorm2d) < 1e-4
    assert moved(partial(nn.GroupNorm, 4)) > 1 and moved(partial(nn.GroupNorm, 1)) > 1
    assert moved(lambda nf: nn.LayerNorm([nf, 14, 14])) > 1

def test_an_error_inside_a_layer_is_its_own():
    class Broken(nn.Module):
        def __init__(self, nf=1):
            super().__init__()
            self.size = len(nf) if nf!=1 else sum(None)           # a fault of its own: TypeError
    for kw in (dict(act=Broken), dict(norm=Broken), dict(act=partial(Broken, 2)), dict(act=lambda: Broken())):
        with pytest.raises(TypeError) as e: conv(1, 8, **kw)
        assert 'conv:' not in str(e.value) and e.traceback[-1].name=='__init__'
    with pytest.raises(ValueError, match='divisible'): conv(1, 8, norm=partial(nn.GroupNorm, 3))
    with pytest.raises(TypeError, match='^conv: act must be a layer class such as nn.ReLU, got Broken: its arguments do not fit'): conv(1, 8, act=partial(Broken, 1, 2))

@pytest.mark.parametrize('args, kw, exc, words', [
    ((0, 8), {}, ValueError, 'ni must be at least 1'), ((1, 8.), {}, TypeError, 'nf must be'), ((1, 8, 3.), {}, TypeError, 'ks must be'),
    ((1, 8, 3, 0), {}, ValueError, 'stride must be'), ((1, 8, (3, 3)), {}, TypeError, 'ks must be'),
    ((1, 8), dict(act=nn.ReLU()), TypeError, 'act must be a layer class, got a ReLU that is made already'),
    ((1, 8), dict(norm=nn.BatchNorm2d(8)), TypeError, 'norm must be .*BatchNorm2d that is made already'),
    ((1, 8), dict(act=F.relu), TypeError, 'act must be .*relu'), ((1, 8), dict(act='relu'), TypeError, "act must be .*'relu'"),
    ((1, 8), dict(act=lambda: 3), TypeError, 'makes no layer'), ((1, 8), dict(norm=True), TypeError, 'norm must be'),
    ((1, 8), dict(norm=nn.GroupNorm), TypeError, 'norm must be .*GroupNorm.*num_channels.*partial'),
    ((1, 8), dict(act=torch.relu), TypeError, 'act must be .*relu: its arguments do not fit'), ((1, 8), dict(norm='batch'), TypeError, 'cannot be called'),
    ((1, 8), dict(act=nn.Linear), TypeError, 'act must be .*Linear: missing')])
def test_block_errors(args, kw, exc, words):
    with pytest.raises(exc, match=f'^conv: .*{words}'): conv(*args, **kw)

def test_block_takes_a_layer():
    class Mine(nn.Conv2d): pass
    block = conv(1, 2, 5, 1, norm=nn.BatchNorm2d, layer=Mine)
    assert [type(o) for o in block] == [Mine, nn.BatchNorm2d, nn.ReLU] and block[0].bias is None
    assert (block[0].kernel_size, block[0].stride, block[0].padding) == ((5, 5), (1, 1), (2, 2))
    assert type(conv(1, 2, act=None, layer=Mine)) is Mine and conv(1, 2, layer=partial(Mine, padding_mode='reflect'))[0].padding_mode == 'reflect'
    for o in (nn.ReLU(), F.conv2d, lambda *a, **k: 3):
        with pytest.raises(TypeError, match='^conv: layer must be a layer class'): conv(1, 2, layer=o)

def test_handed_on():
    from miniai import core
    assert all(getattr(M, o) is getattr(core, o) and o in M.__all__ for o in ('def_device', 'to_device', 'collate_device'))
