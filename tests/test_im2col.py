"im2col, its adjoint and the convolution by a product, against torch on random shapes; gradients, odd layouts, error texts."
import random, warnings

import pytest
import torch
import torch.nn.functional as F
from torch.autograd import gradcheck, gradgradcheck

from miniai import im2col as M
from miniai.conv import conv2d_loop
from miniai.im2col import col2im, conv2d, im2col

def pair(o): return o if isinstance(o, tuple) else (o, o)

def cases(n, seed=0):
    "Random arguments: shapes, strides, paddings, dilations, groups; numbers and pairs; only those in which a window fits."
    rng, res = random.Random(seed), []
    either = lambda lo, hi: rng.choice([rng.randint(lo, hi), (rng.randint(lo, hi), rng.randint(lo, hi))])
    while len(res)<n:
        groups, ks, size = rng.choice([1, 1, 2, 3]), (rng.randint(1, 4), rng.randint(1, 4)), (rng.randint(1, 9), rng.randint(1, 9))
        shape, wshape = (rng.randint(0, 3), groups*rng.randint(1, 3), *size), (groups*rng.randint(1, 3), *ks)
        kw = dict(stride=either(1, 3), padding=either(0, 2), dilation=either(1, 2))
        if rng.random()<.2: kw |= dict(stride=1, padding=rng.choice(['same', 'valid']))
        pads = (9, 9) if kw['padding']=='same' else (0, 0) if kw['padding']=='valid' else pair(kw['padding'])
        if all(d*(k-1) < m+2*p for m, k, p, d in zip(size, ks, pads, pair(kw['dilation']))):
            res.append((shape, (wshape[0], shape[1]//groups, *ks), rng.random()<.5, kw, groups))
    return res

def tensors(shape, wshape, has_bias, dtype=torch.float32):
    g = torch.Generator().manual_seed(0)
    make = lambda *s: torch.randn(*s, generator=g, dtype=torch.float64).to(dtype)
    return make(*shape), make(*wshape), make(wshape[0]) if has_bias else None

def torch_conv(*args, **kw):
    with warnings.catch_warnings():
        warnings.filterwarnings('ignore', "Using padding='same' with even kernel")
        return F.conv2d(*args, **kw)

# --- im2col and col2im
@pytest.mark.parametrize('dtype', [torch.float32, torch.float64, torch.float16, torch.bfloat16])
@pytest.mark.parametrize('shape, wshape, _, kw, groups', [o for o in cases(40, seed=1) if not isinstance(o[3]['padding'], str)])
def test_im2col_equals_unfold(shape, wshape, _, kw, groups, dtype):
    x, ks = tensors(shape, wshape, False, dtype)[0], wshape[2:]
    before, cols = x.clone(), im2col(x, ks, **kw)
    assert torch.equal(cols, F.unfold(x, ks, **kw)) and cols.dtype == dtype
    assert torch.equal(x, before)

@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
@pytest.mark.parametrize('shape, wshape, _, kw, groups', cases(60, seed=2))
def test_col2im_is_fold_and_the_adjoint(shape, wshape, _, kw, groups, dtype):
    x, ks = tensors(shape, wshape, False, dtype)[0], wshape[2:]
    cols = im2col(x, ks, **kw)
    other = torch.randn(cols.shape, dtype=dtype, generator=torch.Generator().manual_seed(1))
    before, back = other.clone(), col2im(other, shape[2:], ks, **kw)
    assert back.shape == x.shape and back.dtype == dtype and torch.equal(other, before)
    assert torch.allclose((cols*other).sum(), (x*back).sum(), rtol=1e-3, atol=1e-3)
    if not isinstance(kw['padding'], str) and len(x): assert torch.allclose(back, F.fold(other, shape[2:], ks, **kw), atol=1e-5)

def test_there_and_back_counts_the_windows():
    x = torch.rand(2, 3, 9, 8)
    for kw in (dict(), dict(stride=2), dict(padding=2, dilation=2), dict(padding='same')):
        count = col2im(im2col(torch.ones_like(x), 3, **kw), (9, 8), 3, **kw)
        assert torch.allclose(col2im(im2col(x, 3, **kw), (9, 8), 3, **kw), x*count, atol=1e-5)

def test_same_puts_the_odd_zero_last():
    x = torch.arange(1., 5).view(1, 1, 1, 4)
    assert im2col(x, (1, 2), padding='same').tolist() == [[[1, 2, 3, 4], [2, 3, 4, 0]]]
    assert im2col(x, (1, 4), padding='same')[0,:,0].tolist() == [0, 1, 2, 3]

def layouts():
    "The same numbers, each time lying differently in memory."
    x = torch.rand(3, 4, 7, 6, generator=torch.Generator().manual_seed(0))
    big = torch.zeros(5, 8, 14, 6)
    big[1:4,::2,::2] = x
    return x, dict(channels_last=x.contiguous(memory_format=torch.channels_last), transposed=x.mT.contiguous().mT,
                   permuted=x.permute(3, 2, 0, 1).contiguous().permute(2, 3, 1, 0), sliced=big[1:4,::2,::2])

@pytest.mark.parametrize('name', layouts()[1])
@pytest.mark.parametrize('ks, kw', [(3, {}), (2, dict(stride=2, padding=1)), (1, {})])
def test_layout_in_memory_does_not_matter(name, ks, kw):
    x, others = layouts()
    y, cols = others[name], im2col(x, ks, **kw)
    assert torch.equal(x, y) and torch.equal(im2col(y, ks, **kw), cols)
    strange = torch.empty(cols.shape[::-1]).permute(2, 1, 0).copy_(cols)             # not contiguous
    assert torch.equal(col2im(strange, x.shape[2:], ks, **kw), col2im(cols, x.shape[2:], ks, **kw))
    w = torch.rand(2, 4, ks, ks)
    assert torch.allclose(conv2d(y, w.contiguous(memory_format=torch.channels_last), **kw), F.conv2d(x, w, **kw), atol=1e-5)
    one = x[:1,:1].expand(3, 4, -1, -1)                                               # strides of 0
    assert torch.equal(im2col(one, ks, **kw), F.unfold(one, ks, **kw))

def test_copies_only_if_it_must():
    x = torch.rand(2, 3, 5, 6)
    assert im2col(x, 1).data_ptr() == x.data_ptr() and im2col(x, 1).shape == (2, 3, 30)
    assert im2col(x, 1, 2).data_ptr() != x.data_ptr() and im2col(x, 3).data_ptr() != x.data_ptr()
    x.requires_grad_()
    with pytest.raises(RuntimeError, match='view'): im2col(x, 1).mul_(2)              # else its gradient would be wrong
    (im2col(x, 1)*3).sum().backward()
    assert (x.grad==3).all()

# --- conv2d
@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
@pytest.mark.parametrize('shape, wshape, has_bias, kw, groups', cases(100))
def test_conv2d_equals_torch(shape, wshape, has_bias, kw, groups, dtype):
    x, w, b = tensors(shape, wshape, has_bias, dtype)
    got, want = conv2d(x, w, b, **kw, groups=groups), torch_conv(x, w, b, **kw, groups=groups)
    assert got.dtype == dtype and got.shape == want.shape and got.is_contiguous()
    assert torch.allclose(got, want, atol=1e-5 if dtype==torch.float32 else 1e-12)

@pytest.mark.parametrize('shape, wshape, has_bias, kw, groups', cases(25, seed=3))
def test_conv2d_gradients_equal_torch(shape, wshape, has_bias, kw, groups):
    args = [o if o is None else o.requires_grad_() for o in tensors(shape, wshape, has_bias, torch.float64)]
    given = [o for o in args if o is not None]
    ours, torchs = [torch.autograd.grad((f(*args, **kw, groups=groups)**2).sum(), given) for f in (conv2d, torch_conv)]
    for a, b in zip(ours, torchs): assert a.shape == b.shape and torch.allclose(a, b, atol=1e-10)

@pytest.mark.parametrize('kw', [dict(stride=(2, 1), padding=(1, 0)), dict(padding='same'), dict(groups=2, dilation=(1, 2))])
def test_gradcheck(kw):
    groups = kw.get('groups', 1)
    x, w, b = [o.requires_grad_() for o in tensors((1, 2, 4, 3), (2, 2//groups, 3, 2), True, torch.float64)]
    f = lambda x, w, b: conv2d(x, w, b, **kw)
    assert gradcheck(f, (x, w, b)) and gradgradcheck(f, (x, w, b))
    kw = {k: v for k, v in kw.items() if k!='groups'}
    cols = im2col(x, (3, 2), **kw).detach().requires_grad_()
    for f, o in ((lambda o: im2col(o, (3, 2), **kw), x), (lambda o: col2im(o, (4, 3), (3, 2), **kw), cols)):
        assert gradcheck(f, o) and gradgradcheck(f, o)

def test_only_what_needs_a_gradient_gets_one():
    x, w, b = tensors((2, 3, 6, 6), (4, 3, 3, 3), True)
    assert not conv2d(x, w, b).requires_grad
    conv2d(x, w.requires_grad_(), b).sum().backward()
    assert w.grad is not None and x.grad is None and b.grad is None
    with torch.no_grad(): assert not conv2d(x.requires_grad_(), w, b).requires_grad and not im2col(x, 3).requires_grad

def test_takes_lists_parameters_and_other_floats():
    x, w = torch.rand(2, 4, 7, 6), torch.nn.Parameter(torch.rand(6, 2, 3, 2))
    kw = dict(stride=[1, 2], padding=[1, 0], groups=2)
    assert torch.allclose(conv2d(x, w, **kw), F.conv2d(x, w, **kw), atol=1e-5)
    for dtype in (torch.float16, torch.bfloat16):
        half = conv2d(x.to(dtype), w.to(dtype), **kw)
        assert half.dtype == dtype and torch.allclose(half.float(), F.conv2d(x, w, **kw), rtol=0.03, atol=0.03)

def test_empty_batch():
    for groups in (1, 2):
        x, w, b = [o.requires_grad_() for o in (torch.rand(0, 4, 5, 6), torch.rand(6, 4//groups, 3, 2), torch.rand(6))]
        y = conv2d(x, w, b, padding=1, groups=groups)
        assert y.shape == F.conv2d(x, w, b, padding=1, groups=groups).shape == (0, 6, 5, 7)
        y.sum().backward()
        assert x.grad.shape == x.shape and not w.grad.any() and not b.grad.any()
    assert im2col(x, 3).shape == (0, 36, 12) and col2im(torch.rand(0, 36, 12), (5, 6), 3).shape == (0, 4, 5, 6)

@pytest.mark.parametrize('shape, wshape, has_bias, kw, groups', cases(25, seed=4))
def test_meta_device_gives_shapes(shape, wshape, has_bias, kw, groups):
    x, w, b = [o if o is None else o.to('meta') for o in tensors(shape, wshape, has_bias)]
    y, cols = conv2d(x, w, b, **kw, groups=groups), im2col(x, wshape[2:], **kw)
    assert y.is_meta and y.shape == torch_conv(x, w, b, **kw, groups=groups).shape
    assert cols.is_meta and cols.shape == (shape[0], shape[1]*wshape[2]*wshape[3], y[0,0].numel() if len(y) else cols.shape[2])
    assert col2im(cols, shape[2:], wshape[2:], **kw).shape == shape

@pytest.mark.skipif(not (torch.cuda.is_available() or torch.backends.mps.is_available()), reason='no accelerator')
def test_on_an_accelerator():
    dev = 'cuda' if torch.cuda.is_available() else 'mps'
    x, w, b = [o.requires_grad_() for o in tensors((2, 4, 9, 8), (6, 2, 3, 3), True)]
    args = [o.detach().to(dev).requires_grad_() for o in (x, w, b)]
    kw = dict(stride=2, padding=1, groups=2)
    y, want = conv2d(*args, **kw), F.conv2d(x, w, b, **kw)
    assert torch.allclose(y.cpu(), want, atol=1e-2)
    y.sum().backward(), want.sum().backward()
    for p, q in zip(args, (x, w, b)): assert torch.allclose(p.grad.cpu(), q.grad, atol=1e-2)

# --- the geometry
def test_geometry_is_kept_but_not_for_ever():
    for n in range(1100): im2col(torch.rand(n, 1, 3, 3, device='meta'), 3)
    info = M._geometry.cache_info()
    assert 0 < info.currsize <= info.maxsize <= 1000
    im2col(torch.rand(1099, 1, 3, 3, device='meta'), 3)
    assert M._geometry.cache_info().hits == info.hits + 1

def test_a_right_call_lets_no_later_mistake_pass():
    x, w = torch.rand(2, 1, 8, 8), torch.rand(3, 1, 3, 3)
    conv2d(x, w, torch.rand(3), stride=1, padding=(1, 1)), im2col(x, 3, 1)
    for bad in (1., True, '1', None, (1, 1.), (True, 1), torch.tensor([1, 1])):
        with pytest.raises((TypeError, ValueError)): conv2d(x, w, torch.rand(3), stride=bad, padding=(1, 1))
        with pytest.raises((TypeError, ValueError)): im2col(x, 3, bad)
    for args in ((x.long(), w), (x, w.long()), (x.double(), w), (x.to('meta'), w), (x, w, [1., 2, 3]), (x.tolist(), w), (x, w.tolist())):
        with pytest.raises((TypeError, ValueError)): conv2d(*args, padding=(1, 1))
    a, b = [im2col(x, 3, torch.tensor(s)) for s in (1, 2)]                # whole numbers too
    assert torch.equal(a, im2col(x, 3)) and torch.equal(b, im2col(x, 3, 2))

# --- errors
x, w = torch.rand(4, 1, 8, 8), torch.rand(6, 1, 3, 3)
bad = [
    ((x[0], w), {}, ValueError, r'\[N,C,H,W\], got float32 \[1,8,8\].*x\[None\]'),
    ((x, w[0]), {}, ValueError, r'\[nf,ni,kh,kw\]'),
    ((x.numpy(), w), {}, TypeError, 'x must be a tensor .*numpy'),
    ((x, w.tolist()), {}, TypeError, 'weight must be a tensor'), ((x, 3), dict(padding='same'), TypeError, r'weight must be a tensor \[nf,ni,kh,kw\], got int 3'),
    ((x, None), {}, TypeError, r'weight must be a tensor \[nf,ni,kh,kw\], got NoneType None'),
    ((torch.rand(4, 3, 8, 8), w), {}, ValueError, r'takes 1 channel, x has 3: .*ni=3'),
    ((x, torch.rand(6, 1, 9, 3)), {}, ValueError, 'spans 9 pixels.*only 8'),
    ((x, w), dict(dilation=4), ValueError, 'spans 9 pixels'),
    ((x, w), dict(stride=0), ValueError, 'stride must be at least 1'),
    ((x, w), dict(dilation=0), ValueError, 'dilation must be at least 1'),
    ((x, w), dict(dilation=0, padding='same'), ValueError, 'dilation must be at least 1'),
    ((x, w), dict(padding=-1), ValueError, 'padding must be at least 0'),
    ((x, w), dict(padding=(1, 1.)), TypeError, 'padding must be a whole number'),
    ((x, w), dict(stride=1.5), TypeError, 'stride must be a whole number'),
    ((x, w), dict(padding='full'), ValueError, "padding must be one of same, valid; got 'full'"),
    ((x, w), dict(padding='same', stride=(1, 2)), ValueError, r"padding='same' keeps the size, so stride must be 1, got \(1, 2\)\. Use padding=\(1, 1\)"),
    ((torch.rand(4, 4, 8, 8), torch.rand(8, 2, 3, 3)), dict(groups=3), ValueError, 'groups=3 must divide.*4 and 8'),
    (((x*255).byte(), w), {}, TypeError, r'got uint8 .*x\.float\(\)/255'),
    ((x.double(), w), {}, TypeError, 'one dtype.*float64.*float32'),
    ((x.to('meta'), w), {}, ValueError, 'x is on meta, weight on cpu'),
    ((x, w, torch.zeros(5)), {}, ValueError, 'each of the 6 kernels'),
    ((x, w[0], None), dict(padding='same'), ValueError, r'\[nf,ni,kh,kw\]'),
]
@pytest.mark.parametrize('args, kw, exc, words', bad)
def test_conv2d_errors(args, kw, exc, words):
    for _ in range(2):                                                     # the second time just the same
        with pytest.raises(exc, match=f'^conv2d: .*{words}'): conv2d(*args, **kw)

@pytest.mark.parametrize('args, kw, exc, words', [
    ((x[0], 3), {}, ValueError, r'\[N,C,H,W\], got float32 \[1,8,8\]'), ((x[0,0,0], 3), {}, ValueError, r'\[N,C,H,W\]'),
    ((x.tolist(), 3), {}, TypeError, 'x must be a tensor'), ((x.long(), 3), {}, TypeError, 'got int64'),
    ((x, 0), {}, ValueError, 'ks must be at least 1'), ((x, None), {}, TypeError, 'ks must be'),
    ((x, w), {}, TypeError, 'ks must be'), ((x, 3.), {}, TypeError, 'ks must be a whole number'),
    ((x, (3, 3, 3)), {}, ValueError, r'ks must be one whole number or \(rows, columns\)'),
    ((x, 9), {}, ValueError, 'spans 9 pixels.*only 8'), ((x, 3, 0), {}, ValueError, 'stride must be at least 1'),
    ((x, 3), dict(padding='sme'), ValueError, "Did you mean 'same'"), ((x, 3, 2), dict(padding='same'), ValueError, 'keeps the size')])
def test_im2col_errors(args, kw, exc, words):
    for _ in range(2):
        with pytest.raises(exc, match=f'^im2col: .*{words}'): im2col(*args, **kw)

cols = torch.rand(2, 18, 36)
@pytest.mark.parametrize('args, exc, words', [
    ((cols[0], 8, 3), ValueError, r'\[N,C·kh·kw,L\], got float32 \[18,36\]. One image'), ((cols.long(), 8, 3), TypeError, 'float'),
    ((cols.tolist(), 8, 3), TypeError, 'cols must be a tensor'), ((cols, 7, 3), ValueError, r'have 25 windows.*\[2,18,36\]'),
    ((cols[:,:17], 8, 3), ValueError, r'\[N,C·9,36\], got float32 \[2,17,36\]'), ((cols[:,:0], 8, 3), ValueError, 'got'),
    ((cols, 2, 3), ValueError, 'spans 3 pixels'), ((cols, 8., 3), TypeError, 'output_size must be'), ((cols, 8, 0), ValueError, 'ks must be')])
def test_col2im_errors(args, exc, words):
    with pytest.raises(exc, match=f'^col2im: .*{words}'): col2im(*args)

def test_agrees_with_the_loop():
    x, w, b = tensors((2, 4, 7, 6), (6, 2, 3, 2), True)
    kw = dict(stride=(2, 1), padding=(0, 1), dilation=(1, 2), groups=2)
    assert torch.allclose(conv2d(x, w, b, **kw), conv2d_loop(x, w, b, **kw), atol=1e-5)
