"deconv is exact for every odd kernel, and the autoencoder fits every size it claims."
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from miniai.autoencoder import ConvAutoencoder, deconv, mean_image_mse, pca_mse, upsample_conv2d
from miniai.layout import batch_last, is_batch_last

def plain(x, w, b): return F.conv2d(F.interpolate(x, scale_factor=2, mode='nearest'), w, b, padding=w.shape[-1]//2)

@pytest.mark.parametrize('ks', [1, 3, 5, 7, 9])
@pytest.mark.parametrize('ni, nf, h, w', [(1, 1, 1, 1), (3, 2, 5, 4), (2, 5, 1, 7)])
@pytest.mark.parametrize('dtype, tol', [(torch.float32, 1e-5), (torch.float64, 1e-12)])
@pytest.mark.parametrize('lay', [torch.Tensor.contiguous, batch_last])
def test_fast_deconv_is_exact_in_all_gradients(ks, ni, nf, h, w, dtype, tol, lay):
    g = torch.Generator().manual_seed(ks)
    shapes = (2, ni, h, w), (nf, ni, ks, ks), (nf,)
    args = [torch.randn(s, generator=g, dtype=dtype).div_(ks).requires_grad_() for s in shapes]
    a, b = plain(*args), upsample_conv2d(lay(args[0]), *args[1:])
    back = torch.randn(a.shape, generator=g, dtype=dtype)
    for p, q in [(a, b), *zip(torch.autograd.grad(a, args, back), torch.autograd.grad(b, args, back))]:
        torch.testing.assert_close(q, p, rtol=tol*10, atol=tol*10 if dtype is torch.float32 else tol)
    torch.testing.assert_close(upsample_conv2d(lay(args[0]), args[1]), plain(*args[:2], None), rtol=tol*10, atol=tol*10)

@pytest.mark.parametrize('nf', [2, 8])
def test_deconv_keeps_the_layout_and_can_be_differentiated_twice(nf):
    g = torch.Generator().manual_seed(nf)
    x, w = (torch.randn(s, generator=g, dtype=torch.float64, requires_grad=True) for s in ((3, 2, 3, 4), (nf, 2, 3, 3)))
    assert is_batch_last(upsample_conv2d(batch_last(x), w)) and not is_batch_last(upsample_conv2d(x, w))
    assert torch.autograd.gradgradcheck(lambda x, w: upsample_conv2d(batch_last(x), w), (x, w))

def test_empty_batch(): assert deconv(3, 2)(torch.zeros(0, 3, 4, 4)).shape==(0, 2, 8, 8)

@pytest.mark.parametrize('kw', [{}, dict(act=None), dict(act=nn.SiLU, norm=nn.BatchNorm2d), dict(ks=5, bias=False)])
def test_fast_and_plain_share_their_weights(kw):
    fast, slow = deconv(3, 4, **kw), deconv(3, 4, fast=False, **kw)
    slow.load_state_dict(fast.state_dict())
    x = torch.randn(2, 3, 6, 6)
    torch.testing.assert_close(fast(x), slow(x), rtol=1e-5, atol=1e-5)
    assert (fast[1].bias is None)==(kw.get('norm') is not None or kw.get('bias') is False)

def test_course_call():
    layer = deconv(8, 4, act=False)
    assert isinstance(layer, nn.Sequential) and len(layer)==2 and deconv(8, 4)(torch.zeros(1, 8, 7, 7)).shape==(1, 4, 14, 14)

@pytest.mark.parametrize('args, word', [((0, 4), 'ni'), ((4, 0), 'nf'), ((4, 4, 2), 'odd'), ((4, 4, 0), 'ks')])
def test_deconv_refuses(args, word):
    with pytest.raises(ValueError, match=word): deconv(*args)

@pytest.mark.parametrize('size', [28, 32, 64, 9, (30, 45), (28, 32)])
@pytest.mark.parametrize('kw', [dict(latent=5), dict(latent=None), dict(ni=3, widths=(4, 8)), dict(widths=(4,), norm=None, out_act=None)])
def test_every_size_comes_back(size, kw):
    m = ConvAutoencoder(**dict(size=size, widths=(4, 8, 8)) | kw).eval()
    x = torch.rand(2, m.ni, *m.size)
    z = m.encode(x)
    assert z.numel()==2*m.latent and m.decode(z).shape==x.shape and torch.equal(m(x), m.decode(z))
    assert f'{m.size[0]}×{m.size[1]}' in repr(m)
    m(x).sum().backward()
    assert all(p.grad is not None for p in m.parameters())

@pytest.mark.parametrize('kw, word', [(dict(latent=0), 'latent'), (dict(latent=2.5), 'latent'), (dict(widths=()), 'empty'), (dict(widths=(8, 0)), 'widths'),
                                      (dict(size=3), 'fewer widths'), (dict(hidden=(64, 0)), 'hidden'),
                                      (dict(latent=None, hidden=(64,)), 'no dense layers'), (dict(ni=0), 'ni'), (dict(size=(28, 'x')), 'size')])
def test_what_cannot_work_is_refused(kw, word):
    with pytest.raises((ValueError, TypeError), match=word): ConvAutoencoder(**kw)

@pytest.mark.parametrize('x, exc, word', [(torch.rand(2, 3, 28, 28), ValueError, 'ni='), (torch.rand(2, 1, 32, 32), ValueError, 'size='),
                                          (torch.rand(28, 28), ValueError, 'N,C,H,W'), (torch.zeros(2, 1, 28, 28, dtype=torch.uint8), TypeError, 'x/255')])
def test_wrong_images_are_explained(x, exc, word):
    with pytest.raises(exc, match=word): ConvAutoencoder()(x)

def test_the_way_through_is_shown():
    way = repr(ConvAutoencoder(8, (4, 6), (20, 10))).split('(', 1)[1].split(', ')[0]
    assert way=='1×28×28 → 4×14×14 → 6×7×7 → 20 → 10 → 8 numbers → 10 → 20 → 6×7×7 → 4×14×14 → 1×28×28'
    assert '6×7×7 → 4×14×14 → 1×28×28' in repr(ConvAutoencoder(None, (4, 6)))
    assert [ConvAutoencoder(k).hidden for k in (31, 32, 64, 65)]==[(512, 256), (512,), (512,), ()]
    assert ConvAutoencoder(None).hidden==() and ConvAutoencoder(4, hidden=()).hidden==()

def test_without_bends_or_with_a_single_number():
    m = ConvAutoencoder(1, (4,), (), act=nn.Identity, norm=None, out_act=None).double()
    x, y = torch.rand(2, 3, 1, 28, 28, dtype=torch.float64)
    torch.testing.assert_close(m((x+y)/2), (m(x)+m(y))/2)          # linear, and a constant
    assert m.encode(x).shape==(3, 1)

def test_beats_pca_with_as_many_numbers():
    from functools import partial
    from miniai.callbacks import OneCycleCB
    from miniai.core import set_seed
    from miniai.datasets import DataLoaders, load_tensors
    from miniai.learner import DeviceCB, Learner, ReconstructCB
    set_seed(0)
    data = load_tensors('digits')
    dls = DataLoaders.from_tensors(*data[:2], bs=64, seed=0)
    learn = Learner(ConvAutoencoder(8), dls, F.mse_loss, 3e-3, [ReconstructCB(), DeviceCB('cpu'), OneCycleCB()], partial(torch.optim.AdamW, fused=True))
    learn.fit(10, valid=False)
    x, xt = (o[0]/255 for o in data[:2])
    with torch.no_grad(): mse = F.mse_loss(learn.model.eval()(xt), xt).item()
    assert mse<0.7*pca_mse(x, xt, 8)

def test_halves_can_be_saved_apart(tmp_path):
    from safetensors.torch import load_file, save_file
    a, b = ConvAutoencoder(4).eval(), ConvAutoencoder(4).eval()
    for part in ('encoder', 'decoder'):
        save_file(getattr(a, part).state_dict(), tmp_path/part)
        getattr(b, part).load_state_dict(load_file(tmp_path/part))
    x = torch.rand(2, 1, 28, 28)
    assert torch.equal(a(x), b(x))

def test_yardsticks():
    g = torch.Generator().manual_seed(0)
    code = torch.randn(200, 3, generator=g)
    x = (code@torch.randn(3, 20, generator=g)).view(200, 1, 4, 5)            # three numbers behind twenty pixels
    assert pca_mse(x[:150], x[150:], 3)<1e-10<pca_mse(x[:150], x[150:], 2)<mean_image_mse(x[:150], x[150:])
    assert pca_mse(x[:150], x[150:], 1000)<1e-10
    with pytest.raises(ValueError, match='k must be'): pca_mse(x, x, 0)

@pytest.mark.parametrize('lay', [torch.Tensor.contiguous, batch_last])
@pytest.mark.parametrize('weight, bias, exc', [((3, 2, 4, 4), None, ValueError), ((3, 2, 3, 5), None, ValueError), ((3, 1, 3, 3), None, ValueError),
                                               ((3, 2, 3, 3), (1,), ValueError), ((2, 3, 3), None, ValueError)])
def test_upsample_conv2d_refuses(lay, weight, bias, exc):
    with pytest.raises(exc, match='upsample_conv2d'):
        upsample_conv2d(lay(torch.rand(4, 2, 6, 5)), torch.rand(weight), None if bias is None else torch.rand(bias))

def test_pruning_counts():
    from torch.nn.utils import prune
    x = torch.rand(2, 2, 4, 4)
    fast, slow = deconv(2, 3), deconv(2, 3, fast=False)
    slow.load_state_dict(fast.state_dict())
    for o in (fast, slow):
        prune.l1_unstructured(o[1], 'weight', .5)
        with torch.no_grad(): o[1].weight_orig.mul_(2)
    torch.testing.assert_close(fast(x), slow(x))

def test_a_piece_of_a_deconv_is_a_plain_sequence():
    layer, x = deconv(2, 3), torch.rand(2, 2, 4, 4)
    torch.testing.assert_close(layer[2:](layer[:2](x)), layer(x))
    assert type(layer[:1]) is nn.Sequential and layer[:1](x).shape==(2, 2, 8, 8)

@pytest.mark.parametrize('lay', [torch.Tensor.contiguous, batch_last])
def test_thin_layers_in_half_precision_and_in_place(lay):
    from miniai.layout import ThinConv2d
    torch.manual_seed(0)
    m = nn.Sequential(ThinConv2d(2, 3, 3, padding=1), nn.ReLU(True), ThinConv2d(3, 4, 3, stride=2, padding=1), nn.ReLU(True),
                      deconv(4, 2, act=lambda: nn.ReLU(True)), deconv(2, 1, act=None))
    x = torch.rand(4, 2, 6, 8)
    m(lay(x)).square().mean().backward()
    want, grads = m(x), [p.grad.clone() for p in m.parameters()]
    m.zero_grad()
    want.square().mean().backward()
    for p, g in zip(m.parameters(), grads): torch.testing.assert_close(p.grad, g, rtol=1e-4, atol=1e-6)
    with torch.autocast('cpu', torch.bfloat16): half = m(lay(x))
    torch.testing.assert_close(half.float(), want, rtol=.05, atol=.05)
    half.float().mean().backward()

@pytest.mark.parametrize('kw, exc, word', [(dict(widths=16), TypeError, 'widths'), (dict(hidden=64), TypeError, 'hidden'), (dict(size=(28,)), ValueError, 'size'),
                                           (dict(size=(28, 28, 28)), ValueError, 'size'), (dict(act=nn.ReLU()), TypeError, 'act')])
def test_arguments_of_the_wrong_kind(kw, exc, word):
    with pytest.raises(exc, match=word): ConvAutoencoder(**kw)

def test_no_activation_and_the_default_one():
    assert not [m for m in ConvAutoencoder(4, act=None, out_act=None).modules() if isinstance(m, (nn.ReLU, nn.SiLU))]
    assert [m for m in ConvAutoencoder(4, act=True).modules() if isinstance(m, nn.ReLU)]

@pytest.mark.parametrize('latent, z', [(4, torch.rand(2, 5)), (4, torch.rand(2, 4, 1, 1)), (None, torch.rand(2, 32, 3, 3))])
def test_codes_of_another_shape_are_explained(latent, z):
    with pytest.raises(ValueError, match='codes'): ConvAutoencoder(latent).decode(z)

@pytest.mark.parametrize('yardstick', [mean_image_mse, lambda a, b: pca_mse(a, b, 1)])
def test_yardsticks_refuse_what_does_not_fit(yardstick):
    x = torch.rand(5, 1, 4, 4)
    for a, b in ((x, torch.rand(5, 3, 4, 4)), (x[:0], x), (x, x[:0])):
        with pytest.raises(ValueError, match='one shape'): yardstick(a, b)
    with pytest.raises(TypeError, match='float'): yardstick(x.byte(), x)
    assert yardstick(x.bfloat16().requires_grad_(), x.bfloat16())>=0

def heard(layer, x):
    "How often each of the two layers is called, with hooks of four kinds."
    calls, (up, conv) = [], list(layer)[:2]
    kinds = [up.register_forward_hook, conv.register_forward_pre_hook, conv.register_forward_hook, conv.register_full_backward_hook]
    hooks = [register(lambda *args, i=i: calls.append(i)) for i, register in enumerate(kinds)]
    layer(x).sum().backward()
    for h in hooks: h.remove()
    return sorted(calls)

def test_hooks_on_its_layers_fire():
    torch.manual_seed(0)
    layer, x = deconv(2, 3), torch.rand(2, 2, 4, 4, requires_grad=True)
    assert len(layer.bypassed)==2 and heard(layer, x)==heard(deconv(2, 3, fast=False), x)==[0, 1, 2, 3]
    assert len(layer.bypassed)==2                            # the hooks are gone
    for i in (0, 1):
        for kind in ('forward', 'forward_pre', 'full_backward', 'full_backward_pre'):
            hook = getattr(layer[i], f'register_{kind}_hook')(lambda *args: None)
            assert not layer.bypassed, (i, kind)
            hook.remove()
    layer[2].register_forward_hook(lambda *args: None)       # this one is called in any case
    assert layer.bypassed

@pytest.mark.parametrize('change', [
    dict(up=nn.Upsample(scale_factor=2, mode='bilinear')), dict(up=nn.Upsample(scale_factor=3)), dict(up=nn.Upsample(size=9)),
    dict(up=nn.UpsamplingNearest2d(scale_factor=2)), dict(up=nn.Identity()), dict(conv=nn.Conv2d(2, 2, 3, padding=1, padding_mode='reflect')),
    dict(conv=nn.Conv2d(2, 2, 3, padding=1, stride=2)), dict(conv=nn.Conv2d(2, 2, 3, padding=2, dilation=2)),
    dict(conv=nn.Conv2d(2, 2, 3, padding=1, groups=2)), dict(conv=nn.Conv2d(2, 2, 3)), dict(conv=nn.Conv2d(2, 2, 2, padding=1)),
    dict(conv=nn.Conv2d(2, 2, (3, 1), padding=(1, 0))), dict(conv=nn.Conv2d(2, 2, 3, padding='same')), dict(conv=nn.Sequential(nn.Conv2d(2, 2, 1)))])
def test_layers_of_another_kind_are_called(change):
    from miniai.summary import summary
    torch.manual_seed(0)
    layer, x = deconv(2, 2), torch.rand(2, 2, 5, 6)
    for name, o in change.items(): layer[('up', 'conv').index(name)] = o
    assert not layer.bypassed and torch.equal(layer(x), nn.Sequential(*layer)(x))
    assert summary(layer, x).macs==summary(nn.Sequential(*layer), x).macs

def test_a_deconv_of_any_length():
    from miniai.autoencoder import Deconv
    x = torch.rand(1, 2, 3, 3)
    assert torch.equal(Deconv()(x), x) and torch.equal(Deconv(nn.ReLU())(-x), torch.zeros_like(x))

def test_a_profiler_counts_the_fast_way():
    from torch.utils.flop_counter import FlopCounterMode
    count = {}
    for fast in (True, False):
        with FlopCounterMode(display=False) as mode: deconv(4, 8, fast=fast)(torch.rand(2, 4, 5, 5))
        count[fast] = mode.get_total_flops()
    assert count[True]==count[False]*16/36

def test_no_deprecated_layer():
    assert not [m for m in ConvAutoencoder(4).modules() if isinstance(m, nn.UpsamplingNearest2d)]

def test_only_a_batch_norm_makes_a_bias_useless():
    from functools import partial
    group, keeps = partial(nn.GroupNorm, 2), lambda norm, **kw: deconv(3, 4, norm=norm, **kw)[1].bias is not None
    assert not keeps(nn.BatchNorm2d) and not keeps(partial(nn.BatchNorm2d, eps=1e-3)) and keeps(group) and keeps(None)
    assert keeps(nn.BatchNorm2d, bias=True) and not keeps(group, bias=False)
    layer, x = deconv(3, 4, act=None, norm=group), torch.rand(2, 3, 4, 4)
    before = layer(x)
    with torch.no_grad(): layer[1].bias.copy_(torch.tensor([9., 0, 0, 0]))       # a bias of one channel moves the others of its group
    assert (layer(x)-before).abs().max()>1

import json
configs = [{}, dict(latent=None), dict(latent=40), dict(latent=8, hidden=()), dict(hidden=(7, 5), ni=3, size=(9, 14), widths=(4,)), dict(act=None, norm=None),
           dict(act=True, out_act=None, fast=False), dict(act=nn.GELU, norm=nn.InstanceNorm2d), dict(size=torch.tensor(28), latent=torch.tensor(3))]

@pytest.mark.parametrize('kw', configs)
def test_config_builds_the_same_model(kw):
    a = ConvAutoencoder(**kw)
    config = json.loads(json.dumps(a.config))
    b = ConvAutoencoder.from_config(config)
    assert config==a.config==b.config and repr(a)==repr(b)
    assert list(config)==['latent', 'widths', 'hidden', 'ni', 'size', 'act', 'norm', 'out_act', 'fast']
    assert [str(o) for o in a.modules()]==[str(o) for o in b.modules()]
    b.load_state_dict(a.state_dict())
    x = torch.rand(2, a.ni, *a.size)
    assert torch.equal(a.eval()(x), b.eval()(x))
    assert all(o.fast==a.fast for o in b.modules() if hasattr(o, 'bypassed'))

def test_every_argument_is_in_the_config():
    from inspect import signature
    assert {*signature(ConvAutoencoder).parameters}=={*ConvAutoencoder().config}

@pytest.mark.parametrize('arg, cls', [('norm', lambda n: nn.GroupNorm(1, n)), ('act', type('Mine', (nn.ReLU,), {})), ('out_act', lambda: nn.Hardtanh(0, 1))])
def test_config_refuses_what_has_no_name(arg, cls):
    m = ConvAutoencoder(4, **{arg: cls})
    assert m(torch.rand(2, 1, 28, 28)).shape==(2, 1, 28, 28)                     # it works, it only cannot be written
    with pytest.raises(ValueError, match=f'{arg} is .*torch.nn'): m.config

@pytest.mark.parametrize('change, word', [(dict(act='Nothing'), 'act'), (dict(norm='functional'), 'norm'), (dict(out_act=3), 'out_act'),
                                          (dict(colour=3), 'colour'), (dict(latent=0), 'latent'), (dict(widths=[]), 'empty')])
def test_from_config_refuses(change, word):
    with pytest.raises(ValueError, match=word): ConvAutoencoder.from_config(ConvAutoencoder().config | change)
    with pytest.raises(ValueError, match='size'): ConvAutoencoder.from_config({k: v for k, v in ConvAutoencoder().config.items() if k!='size'})
