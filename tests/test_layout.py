"Layouts, the thin convolution against torch with its gradients, the shuffle, and the layers that choose."
import copy
from functools import partial
from itertools import product

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.autograd import grad, gradcheck, gradgradcheck

from miniai import layout as M
from miniai.conv import conv
from miniai.layout import BatchFirst, BatchLast, ThinConv2d, batch_first, batch_last, is_batch_last, shuffle_batch_last, thin_conv2d
from miniai.receptive import receptive_field
from miniai.summary import summary

def make(*size, dtype=torch.float64, seed=0):
    return torch.randn(*size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)

# --- layout
shapes = [(5, 3, 4, 6), (2, 1, 28, 28), (4, 3, 1, 1), (6, 1, 1, 1), (1, 3, 4, 5), (0, 3, 4, 5), (3, 0, 4, 5), (1, 1, 1, 1)]

@pytest.mark.parametrize('dtype', [torch.float32, torch.float64, torch.uint8, torch.int64, torch.bool])
@pytest.mark.parametrize('size', shapes)
def test_batch_last_keeps_values_and_moves_them(size, dtype):
    x = (make(*size)*50).to(dtype)
    for o in (x, x.to(memory_format=torch.channels_last), x.transpose(2, 3).contiguous().transpose(2, 3)):
        y = batch_last(o)
        assert torch.equal(x, y) and y.dtype==dtype and y.shape==x.shape and is_batch_last(y)
        assert y.permute(1, 2, 3, 0).is_contiguous() and batch_last(y) is y

def test_is_batch_last():
    x = torch.rand(4, 2, 6, 5)
    assert not any(map(is_batch_last, (x, x.to(memory_format=torch.channels_last), x[0], x[0,0], x.flatten())))
    y = batch_last(x)
    assert is_batch_last(y) and is_batch_last(y[:,1:]) and is_batch_last(y[:,:,2:3,:][:,:1])
    assert not any(map(is_batch_last, (y[:2], y[:,:,1:], y[:,:,:,1:], y[::2], y.transpose(2, 3), y.contiguous())))
    assert is_batch_last(torch.rand(7, 1, 1, 1)) and is_batch_last(x[:1])        # both at once

def test_batch_last_has_a_gradient():
    x = make(3, 2, 4, 3).requires_grad_()
    assert gradcheck(batch_last, x) and gradgradcheck(batch_last, x)
    batch_last(x).square().sum().backward()
    assert torch.allclose(x.grad, 2*x)

def test_batch_last_errors():
    with pytest.raises(ValueError, match=r'batch_last: x must be a tensor \[N,C,H,W\].*x\[None\]'): batch_last(torch.rand(3, 4, 5))
    with pytest.raises(TypeError, match='batch_last: x must be a tensor'): batch_last([1])

# --- the convolution
grid = list(product([(3, 3), (2, 3), (1, 1), (5, 4)], [1, 2, (2, 1), (3, 2)], [0, 1, (2, 1)], (0, 1, 2, 5), (True, False)))

@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
def test_thin_equals_torch(dtype):
    for i, (ks, stride, padding, n, has_bias) in enumerate(grid):
        c, nf = 1+i%3, 1+i%4
        x, w = make(n, c, 7, 6, dtype=dtype, seed=i).requires_grad_(), make(nf, c, *ks, dtype=dtype, seed=i+1).requires_grad_()
        b = make(nf, dtype=dtype).requires_grad_() if has_bias else None
        ins = (x, w, b) if has_bias else (x, w)
        want, tol = F.conv2d(x, w, b, stride, padding), dict(rtol=1e-4, atol=1e-4) if dtype==torch.float32 else {}
        for x_ in (x, batch_last(x)):
            got = thin_conv2d(x_, w, b, stride, padding)
            assert got.dtype==dtype and got.shape==want.shape and is_batch_last(got)
            assert torch.allclose(got, want, **tol)
            g = make(*want.shape, dtype=dtype, seed=i+2)
            for g_ in (g, batch_last(g)):
                for p, q in zip(grad(got, ins, g_, retain_graph=True), grad(want, ins, g_, retain_graph=True)):
                    assert p.shape==q.shape and p.dtype==dtype and torch.allclose(p, q, **tol)

@pytest.mark.parametrize('has_bias', [True, False])
@pytest.mark.parametrize('ks, stride, padding', [((3, 2), (2, 1), 1), ((2, 2), 1, (0, 1)), ((3, 3), 2, 1), ((1, 1), 1, 0), ((2, 3), 3, 0)])
def test_thin_gradients(ks, stride, padding, has_bias):
    x, w, b = make(2, 2, 5, 4).requires_grad_(), make(3, 2, *ks, seed=1).requires_grad_(), make(3, seed=2).requires_grad_()
    f = lambda *o: thin_conv2d(batch_last(o[0]), *o[1:], *[None]*(not has_bias), stride, padding)
    ins = (x, w, b)[:2+has_bias]
    assert gradcheck(f, ins) and gradgradcheck(f, ins)

@pytest.mark.parametrize('needs', list(product((True, False), repeat=3))[:-1])
def test_thin_gradients_of_some(needs):
    ins = make(3, 2, 5, 4), make(3, 2, 3, 3, seed=1), make(3, seed=2)
    for o, need in zip(ins, needs): o.requires_grad_(need)
    some = [o for o in ins if o.requires_grad]
    thin, plain = [f(*ins, stride=2, padding=1).square().sum() for f in (thin_conv2d, F.conv2d)]
    for create in (True, False):                          # both ways back
        for p, q in zip(grad(thin, some, retain_graph=True, create_graph=create), grad(plain, some, retain_graph=True)):
            assert torch.allclose(p, q)

def test_thin_takes_odd_tensors():
    x, w = make(4, 3, 8, 6), make(5, 3, 3, 3)
    want = F.conv2d(x, w, None, 2, 1)
    views = [x.expand(4, 3, 8, 6), batch_last(torch.cat([x, x], 1))[:,3:], batch_last(F.pad(x, (1,)*4))[:,:,1:-1,1:-1],
             x.to(memory_format=torch.channels_last), batch_last(torch.cat([x, x]))[4:]]
    for o in views: assert torch.allclose(thin_conv2d(o, w, None, 2, 1), want)
    for o in (w.to(memory_format=torch.channels_last), w.transpose(2, 3).contiguous().transpose(2, 3)):
        o.requires_grad_()
        assert torch.allclose(thin_conv2d(x, o, None, [2, 2], [1, 1]), want)
        g, = grad(thin_conv2d(x, o, None, 2, 1).sum(), o)          # the gradient that arrives has strides 0
        assert torch.allclose(g, grad(F.conv2d(x, o, None, 2, 1).sum(), o)[0])
    same = x[:,:1].expand(4, 3, 8, 6)                               # a channel repeated without a copy
    assert torch.allclose(thin_conv2d(same, w), F.conv2d(same, w)) and torch.allclose(thin_conv2d(same, w[:,:,:1,:1]), F.conv2d(same, w[:,:,:1,:1]))

def test_thin_leaves_its_inputs_alone():
    x, w, b = (make(3, 2, 6, 5).requires_grad_(), make(4, 2, 3, 3, seed=1).requires_grad_(), make(4).requires_grad_())
    before = [o.detach().clone() for o in (x, w, b)]
    y = thin_conv2d(x, w, b, 2, 1)
    g = batch_last(torch.randn_like(y))
    keep = g.clone()
    y.backward(g)
    assert torch.equal(g, keep) and all(torch.equal(p, q) for p, q in zip((x, w, b), before))

def test_thin_notices_changes_in_place():
    x, w = make(3, 2, 6, 5).requires_grad_(), make(4, 2, 3, 3).requires_grad_()
    y = thin_conv2d(x, w)
    with torch.no_grad(): w.mul_(2)
    with pytest.raises(RuntimeError, match='modified by an inplace operation'): y.sum().backward()

def test_thin_under_autocast():
    x, w = make(3, 2, 6, 5, dtype=torch.float32), make(4, 2, 3, 3, dtype=torch.float32).requires_grad_()
    with torch.autocast('cpu', torch.bfloat16): y, want = thin_conv2d(batch_last(x), w), F.conv2d(x, w)
    assert y.dtype==want.dtype==torch.bfloat16 and is_batch_last(y) and torch.allclose(y, want, atol=0.1)
    assert grad(y.float().sum(), w)[0].dtype==torch.float32

x4, w4 = torch.rand(4, 1, 8, 8), torch.rand(6, 1, 3, 3)
@pytest.mark.parametrize('args, exc, words', [
    ((torch.rand(4, 3, 8, 8), w4), ValueError, r'weight \[6,1,3,3\] takes 1 channel, x has 3'),
    ((x4[0], w4), ValueError, r'x\[None\]'), ((x4.numpy(), w4), TypeError, 'x must be a tensor'),
    ((x4, w4.tolist()), TypeError, 'weight must be a tensor'), ((x4, w4, [0.]*6), TypeError, 'bias must be a tensor'),
    ((x4.double(), w4), TypeError, 'one dtype'), (((x4*255).byte(), w4), TypeError, r'x\.float\(\)/255'),
    ((x4, w4, torch.zeros(5)), ValueError, 'each of the 6 kernels'), ((x4, w4, torch.zeros(1)), ValueError, 'each of the 6 kernels'),
    ((x4, w4, None, 0), ValueError, 'stride must be at least 1'), ((x4, w4, None, 1, -1), ValueError, 'padding must be at least 0'),
    ((x4, w4, None, 1.), TypeError, 'stride must be a whole number'), ((x4, w4, None, True), TypeError, 'stride must be'),
    ((x4, w4, None, 1, 'same'), TypeError, 'padding must be'), ((x4, w4, None, (1, 2, 3)), ValueError, 'stride must be one'),
    ((x4, torch.rand(6, 1, 9, 3)), ValueError, 'spans 9 pixels')])
def test_thin_errors(args, exc, words):
    for warm in (False, True):                            # what was right before does not excuse what is wrong now
        if warm: thin_conv2d(x4, w4), thin_conv2d(x4, w4, None, 1, 1), thin_conv2d(x4, w4, torch.zeros(6), (1, 1), (0, 0))
        with pytest.raises(exc, match=f'^thin_conv2d: .*{words}'): thin_conv2d(*args)

def test_transforms_are_refused_not_wrong():
    with pytest.raises(RuntimeError): torch.func.vmap(lambda x: thin_conv2d(x[None], w4))(x4)
    with pytest.raises((RuntimeError, NotImplementedError)): torch.func.jvp(lambda x: thin_conv2d(x, w4), (x4,), (x4,))

@pytest.mark.parametrize('size', shapes)
def test_rows_may_lie_outside_of_channels(size):
    x = make(*size)
    hcwn = x.permute(2, 1, 3, 0).contiguous().permute(3, 1, 0, 2)
    assert is_batch_last(hcwn) and batch_last(hcwn) is hcwn and torch.equal(batch_first(hcwn), x) and batch_first(hcwn).is_contiguous()
    if not x.numel(): return
    w = make(4, size[1], 1, 1)
    assert torch.allclose(thin_conv2d(hcwn, w, None, 1, (2, 1)), F.conv2d(x, w, None, 1, (2, 1)))
    four = x.repeat_interleave(4, 1)
    y = four.permute(2, 1, 3, 0).contiguous().permute(3, 1, 0, 2).requires_grad_()
    out = shuffle_batch_last(y)
    assert torch.equal(out, F.pixel_shuffle(four, 2)) and is_batch_last(out)
    assert torch.equal(grad(out, y, 2*out)[0], 2*four)

@pytest.mark.parametrize('size', shapes)
def test_batch_first_goes_back(size):
    x, back = make(*size), BatchFirst()
    for o in (x, batch_last(x), x.to(memory_format=torch.channels_last)):
        y = back(o.requires_grad_() if o.is_leaf else o)
        assert torch.equal(y, x) and y.is_contiguous() and y.shape==x.shape
        assert torch.equal(grad(y, o, 2*y)[0], 2*x)
    with pytest.raises(ValueError, match=r'^batch_first: .*x\[None\]'): back(torch.rand(3, 4, 5))

@pytest.mark.parametrize('size', [(1, 3, 4, 4), (5, 1, 1, 1), (2, 3, 4, 4)])
def test_what_lies_as_usual_comes_back_itself(size):
    x = make(*size)
    assert batch_first(x) is x                              # also where it lies batch last as well

def test_thin_keeps_strips_no_larger_than_its_rows_need():
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.numel()) or t, lambda t: t):
        thin_conv2d(batch_last(make(8, 2, 16, 16)), make(4, 2, 3, 3).requires_grad_(), None, 1, 1)
    assert max(kept)==18*3*2*16*8                                   # three shifts of each row, not nine copies

def test_gaps_between_rows_are_no_reason_to_transpose():
    x, w = make(5, 2, 8, 6), make(3, 2, 3, 3)
    inner = batch_last(F.pad(x, (1,)*4))[:,:,1:-1,1:-1].requires_grad_()                            # batch innermost, gaps
    assert M._lines(inner).data_ptr()==inner.data_ptr() and not is_batch_last(inner)
    y = thin_conv2d(inner, w, None, 2, 1)
    g = batch_last(F.pad(torch.randn_like(y), (1,)*4))[:,:,1:-1,1:-1]
    assert torch.allclose(grad(y, inner, g)[0], grad(F.conv2d(inner, w, None, 2, 1), inner, g)[0])
    assert torch.equal(batch_last(inner), x) and torch.equal(batch_first(inner), x)
    four = batch_last(F.pad(make(3, 8, 4, 4), (1,)*4))[:,:,1:-1,1:-1]
    assert torch.equal(shuffle_batch_last(four), F.pixel_shuffle(four, 2))

def test_strips_are_copied_once():
    for size, kw, stride in (((8, 1, 9, 9), 3, (1, 1)), ((8, 2, 9, 9), 3, (1, 1)), ((8, 1, 9, 9), 3, (2, 2))):
        strips = M._strips(batch_last(make(*size)), kw, stride, (1, 1))
        assert strips.is_contiguous() and M._blocks(strips, 3, stride[0]).data_ptr()==strips.data_ptr()      # no overlap, no second copy

# --- the shuffle
def woven(y, shift):
    "Pixel by pixel: what `shuffle_batch_last` should give."
    n, c, h, w = y.shape
    pixel = lambda i, j: y.unflatten(1, (c//4, 4))[:, :, 2*(i%2)+j%2, i//2+shift*(i%2), j//2+shift*(j%2)]
    side = range(2*(h-shift)), range(2*(w-shift))
    return torch.stack([torch.stack([pixel(i, j) for j in side[1]], -1) for i in side[0]], -2)

@pytest.mark.parametrize('shift', [False, True])
@pytest.mark.parametrize('n, c, h, w', [(3, 1, 4, 5), (2, 3, 6, 4), (1, 2, 4, 4), (0, 2, 4, 4), (3, 1, 2, 3)])
def test_shuffle_equals_its_definition(n, c, h, w, shift):
    y, f = make(n, 4*c, h, w).requires_grad_(), partial(shuffle_batch_last, shift=shift)
    want = woven(y, shift)
    if not shift: assert torch.equal(want, F.pixel_shuffle(y, 2))
    g = make(*want.shape, seed=1)
    for y_, g_ in product((y, batch_last(y)), (g, batch_last(g))):
        assert torch.equal(f(y_), want) and is_batch_last(f(y_))
        assert torch.equal(grad(f(y_), y, g_)[0], grad(want, y, g, retain_graph=True)[0])
    if n: assert gradcheck(f, y) and gradgradcheck(f, y)

def test_shuffle_of_a_part():
    y = batch_last(make(3, 12, 4, 4))
    assert torch.equal(shuffle_batch_last(y[:,4:8], True), woven(y[:,4:8], True))

@pytest.mark.parametrize('args, exc, words', [
    ((torch.rand(4, 4, 4),), ValueError, r'\[N,4·C,h,w\]'), ((torch.rand(2, 6, 4, 4),), ValueError, 'in fours'),
    ((torch.rand(2, 4, 4, 1), True), ValueError, 'two rows and two columns'), ((torch.rand(2, 4, 4, 4), 2), ValueError, 'shift must be True'),
    ((torch.rand(2, 4, 4, 4), 'yes'), ValueError, 'shift must be True'), (([1],), TypeError, 'y must be a tensor')])
def test_shuffle_errors(args, exc, words):
    with pytest.raises(exc, match=f'^shuffle_batch_last: .*{words}'): shuffle_batch_last(*args)

# --- the layers
def test_the_layout_is_the_switch(monkeypatch):
    called = []
    monkeypatch.setattr(M, 'thin_conv2d', lambda *a: called.append(1) or thin_conv2d(*a))
    x, m = torch.rand(4, 2, 8, 8), ThinConv2d(2, 3, 3, stride=2, padding=1)
    assert torch.equal(m(x), F.conv2d(x, m.weight, m.bias, 2, 1)) and not called
    assert torch.allclose(m(batch_last(x)), m(x), atol=1e-5) and len(called)==1
    assert is_batch_last(m(batch_last(x))) and not is_batch_last(m(x))
    called.clear()
    assert m(batch_last(x[:1])).shape==(1, 3, 4, 4) and m(x[0]).shape==(3, 4, 4) and not called

@pytest.mark.parametrize('kw', [dict(groups=2), dict(dilation=2), dict(padding='same'), dict(padding_mode='reflect', padding=1), dict(bias=False)])
def test_other_convolutions_stay_right(kw):
    torch.manual_seed(0)
    m, x = ThinConv2d(2, 4, 3, **kw), torch.rand(4, 2, 8, 8)
    plain = nn.Conv2d(2, 4, 3, **kw)
    plain.load_state_dict(m.state_dict())
    assert torch.allclose(m(batch_last(x)), plain(x), atol=1e-5)

def net(layer, *first):
    torch.manual_seed(0)
    return nn.Sequential(nn.ZeroPad2d(2), *first, conv(1, 2, layer=layer), conv(2, 4, layer=layer), conv(4, 8, act=None, layer=layer))

def test_thin_network_trains_as_the_plain_one():
    x, nets = torch.rand(6, 1, 28, 28), [net(nn.Conv2d), net(ThinConv2d, BatchLast())]
    nets[1].load_state_dict({k.replace('1.', '2.', 1) if k[0]=='1' else f'{int(k[0])+1}{k[1:]}': v for k, v in nets[0].state_dict().items()})
    outs = [m(x) for m in nets]
    assert torch.allclose(*outs, atol=1e-5) and is_batch_last(outs[1]) and not is_batch_last(outs[0])
    for o in outs: o.square().mean().backward()
    for p, q in zip(*[m.parameters() for m in nets]): assert torch.allclose(p.grad, q.grad, atol=1e-5)
    assert torch.allclose(copy.deepcopy(nets[1])(x), outs[1])

def test_fields_and_counts_pass_through():
    plain, thin = net(nn.Conv2d), net(ThinConv2d, BatchLast())
    rows = lambda m: [(r.size, r.jump, r.start) for r in receptive_field(m, 28) if r.layer!='BatchLast']
    assert rows(plain)==rows(thin)
    tables = [summary(m, torch.rand(4, 1, 28, 28)) for m in (plain, thin)]
    assert tables[0].macs==tables[1].macs and [r.field for r in tables[0]]==[r.field for r in tables[1] if r.layer!='BatchLast']
    moved, = [r for r in tables[1] if r.layer=='BatchLast']
    assert moved.macs==0 and moved.params==0 and moved.out==(1, 32, 32)

@pytest.mark.parametrize('change, exc', [(dict(bias=torch.zeros(6).double()), TypeError), (dict(bias=torch.zeros(1)), ValueError), (dict(bias=torch.zeros(6).numpy()), TypeError),
                                         (dict(weight=torch.ones(6, 2, 3, 3).double()), TypeError), (dict(weight=torch.ones(6, 2, 3, 3, device='meta')), ValueError),
                                         (dict(stride=(1., 1.)), TypeError), (dict(stride=(True, True)), TypeError), (dict(stride=1.), TypeError)])
def test_a_right_call_excuses_no_wrong_one(change, exc):
    args = dict(x=batch_last(torch.ones(4, 2, 5, 5)), weight=torch.ones(6, 2, 3, 3), bias=torch.zeros(6), stride=(1, 1), padding=0)
    thin_conv2d(**args)
    with pytest.raises(exc, match='thin_conv2d'): thin_conv2d(**args | change)
