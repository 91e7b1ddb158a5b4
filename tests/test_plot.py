"Every form an image may have, every shape of grid, and what is said when it is none."
import inspect, math, warnings

import matplotlib
matplotlib.use('Agg')
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import nn

from miniai.plot import (as_array, get_grid, grid_size, pixel_table, plot_losses, show_image, show_images,
                         show_predictions, show_reconstructions, subplots)


@pytest.fixture(autouse=True)
def clean_figures():
    "Each test starts without figures and with matplotlib's defaults, and leaves none behind."
    plt.close('all')
    with matplotlib.rc_context(): yield
    plt.close('all')

def open_figures(): return len(plt.get_fignums())

# every form of an image

GREY = np.arange(30, dtype=np.uint8).reshape(6, 5)*8              # [6,5]: no side can be taken for channels
RGB = np.stack([GREY, GREY[::-1], 255-GREY], -1)                  # [6,5,3]
RGBA = np.concatenate([RGB, np.full_like(RGB[..., :1], 200)], -1)

def chw(a): return torch.from_numpy(a.transpose(2, 0, 1).copy())

FORMS = {
    'PIL L': (Image.fromarray(GREY), GREY), 'PIL RGB': (Image.fromarray(RGB), RGB),
    'PIL RGBA': (Image.fromarray(RGBA), RGBA), 'PIL 1': (Image.fromarray(GREY>99), GREY>99),
    'PIL I;16': (Image.fromarray(GREY.astype(np.uint16)), GREY),
    'PIL F': (Image.fromarray(GREY.astype(np.float32)), GREY), 'numpy HW': (GREY, GREY),
    'numpy HW1': (GREY[..., None], GREY), 'numpy 1HW': (GREY[None], GREY), 'numpy HWC': (RGB, RGB),
    'numpy CHW': (RGB.transpose(2, 0, 1), RGB), 'numpy float HWC': (RGB/255, RGB/255),
    'numpy float RGBA': (RGBA/255, RGBA/255), 'numpy float16': (GREY.astype(np.float16), GREY),
    'numpy big-endian': (GREY.astype('>f4'), GREY), 'numpy int64 HWC': (RGB.astype(np.int64), RGB),
    'numpy bool HWC': (RGB>99, RGB>99), 'numpy strided': (RGB[::-1, ::-1], RGB[::-1, ::-1]),
    'list of lists': (GREY.tolist(), GREY), 'numpy batch of one': (RGB[None], RGB),
    'tensor HW': (torch.from_numpy(GREY), GREY), 'tensor 1HW': (torch.from_numpy(GREY)[None], GREY),
    'tensor CHW': (chw(RGB), RGB), 'tensor HWC': (torch.from_numpy(RGB), RGB), 'tensor 4HW': (chw(RGBA), RGBA),
    'tensor batch of one': (chw(RGB)[None], RGB),
    'float tensor': (chw(RGB)/255, (RGB/np.float32(255)).astype(np.float32)),
    'float64 tensor': (chw(RGB).double()/255, RGB/255), 'bool tensor': (torch.from_numpy(GREY>99), GREY>99),
    'bfloat16': (torch.from_numpy(GREY).bfloat16(), torch.from_numpy(GREY).bfloat16().float().numpy()),
    'float16 tensor': (chw(RGB).half()/256, (RGB/256).astype(np.float32)),
    'requires_grad': ((chw(RGB)/256).requires_grad_(), RGB/256),
    'graph': ((chw(RGB)/256).requires_grad_()*.5, RGB/512), 'Parameter': (nn.Parameter(chw(RGB)/256), RGB/256),
    'permuted tensor': (torch.from_numpy(RGB).permute(2, 0, 1), RGB),
    'one pixel': (torch.zeros(1, 1, 1), np.zeros((1, 1))), 'ambiguous numpy 3,5,3 is HWC': (RGB[:3], RGB[:3]),
    'ambiguous tensor 3,5,3 is CHW': (torch.from_numpy(RGB[:3]), RGB[:3].transpose(1, 2, 0))}

@pytest.mark.parametrize('im,expected', FORMS.values(), ids=FORMS.keys())
def test_every_form_becomes_the_same_array_and_can_be_drawn(im, expected):
    res = as_array(im)
    assert res.shape == expected.shape and np.array_equal(res, expected)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        ax = show_image(im, figsize=(.5, .5))
        ax.figure.canvas.draw()
    assert np.array_equal(as_array(res), res)                     # an array that was made here may be passed again

@pytest.mark.parametrize('mode', ['P', 'LA', 'CMYK', 'YCbCr', 'HSV'])
def test_other_pil_modes_show_their_colours(mode):
    im = Image.fromarray(RGB).convert(mode)
    assert np.array_equal(as_array(im)[..., :3], np.asarray(im.convert('RGB')))

def test_imaginary_part_of_a_conjugate():
    z = torch.complex(torch.ones(4, 5), torch.ones(4, 5))
    assert (as_array(z.conj().imag)==-1).all()

@pytest.mark.parametrize('im,exc,what', [
    (torch.zeros(2, 6, 5), ValueError, 'float32 [2,6,5]'),
    (np.zeros((2, 6, 5)), ValueError, 'numpy float64 [2,6,5]'), (torch.zeros(784), ValueError, 'float32 [784]'),
    (torch.tensor(1.), ValueError, 'float32 []'), (torch.zeros(0), ValueError, 'float32 [0]'),
    (torch.zeros(3, 0, 0), ValueError, 'float32 [3,0,0]'),
    (torch.zeros(1, 1, 1, 6, 5), ValueError, 'float32 [1,1,1,6,5]'),
    (torch.zeros(4, 5, dtype=torch.complex64), TypeError, 'complex64 [4,5]'),
    ('cat.png', TypeError, "str 'cat.png'"), (np.array([['a']]), TypeError, 'numpy <U1 [1,1]'),
    (None, TypeError, 'NoneType None'), ({'image': 1}, TypeError, "{'image': int 1}")])
def test_no_image_is_refused_by_name_and_without_a_figure(im, exc, what):
    with pytest.raises(exc) as e: show_image(im)
    assert str(e.value).startswith('show_image: takes ') and what in str(e.value) and 'batch' not in str(e.value)
    assert not open_figures()

@pytest.mark.parametrize('im', [
    torch.zeros(64, 1, 6, 5), torch.zeros(64, 6, 5), np.zeros((8, 6, 5, 3)), [torch.zeros(1, 6, 5)]*8,
    [Image.fromarray(GREY)]*8])
def test_a_batch_is_sent_to_show_images(im):
    with pytest.raises(ValueError, match='try show_images'): show_image(im)

def test_two_channels_last_are_no_batch():
    with pytest.raises(ValueError) as e: show_image(torch.zeros(6, 5, 2))
    assert 'batch' not in str(e.value)

# one picture

@pytest.mark.parametrize('title,text', [
    ('cat', 'cat'), (7, '7'), (0, '0'), (torch.tensor(3), '3'), (np.int64(4), '4'), (None, '')])
def test_title(title, text): assert show_image(GREY, title=title).get_title() == text

def test_figsize_of_a_new_figure():
    assert tuple(show_image(GREY, figsize=(2, 5)).figure.get_size_inches()) == (2, 5)

def test_axes_given_are_used_and_frame_can_stay():
    _, ax = plt.subplots()
    assert show_image(GREY, ax, noframe=False) is ax and ax.axison and not len(ax.get_xticks())
    assert not len(ax.get_yticks())
    assert not show_image(GREY, ax).axison
    assert open_figures() == 1

def cmap_of(ax): return ax.get_images()[0].get_cmap().name

def test_grey_unless_the_user_chose_otherwise():
    assert cmap_of(show_image(GREY)) == 'gray' and cmap_of(show_image(GREY, cmap='magma')) == 'magma'
    with plt.rc_context({'image.cmap': 'plasma'}):
        assert cmap_of(show_image(GREY)) == 'plasma' and cmap_of(show_images([GREY])[0]) == 'plasma'
        assert cmap_of(show_image(GREY, cmap='gray')) == 'gray'

def test_keywords_reach_imshow():
    assert show_image(GREY, vmin=-5, vmax=300).get_images()[0].get_clim() == (-5, 300)
    assert {o.get_images()[0].get_clim() for o in show_images([GREY, GREY//2], vmin=0, vmax=9)} == {(0, 9)}

def test_nothing_is_changed():
    t, a = chw(RGB)/256, RGB.copy()
    kept = t.clone()
    show_image(t); show_images([a, a]); pixel_table(GREY)
    assert torch.equal(t, kept) and np.array_equal(a, RGB)

# grids

@pytest.mark.parametrize('n,kwargs,expected', [
    (1, {}, (1, 1)), (2, {}, (1, 2)), (5, {}, (2, 3)), (9, {}, (3, 3)), (101, {}, (10, 11)),
    (7, dict(nrows=1), (1, 7)), (7, dict(nrows=2), (2, 4)), (7, dict(ncols=3), (3, 3)), (7, dict(ncols=1), (7, 1)),
    (5, dict(ncols=9), (1, 9)), (3, dict(nrows=5), (5, 1)), (6, dict(nrows=2, ncols=3), (2, 3)),
    (1, dict(nrows=2, ncols=3), (2, 3)), (4, dict(nrows=np.int64(2)), (2, 2))])
def test_grid_size(n, kwargs, expected): assert grid_size(n, **kwargs) == expected

@pytest.mark.parametrize('n', range(1, 60))
def test_a_grid_holds_all_and_wastes_less_than_a_row(n):
    nrows, ncols = grid_size(n)
    assert nrows*ncols-nrows < n <= nrows*ncols and nrows <= ncols <= nrows+2

@pytest.mark.parametrize('args,exc,match', [
    ((7, 2, 3), ValueError, '2 rows of 3 hold 6 pictures, not 7'), ((0,), ValueError, 'n must be at least 1'),
    ((3, 0), ValueError, 'nrows must be'), ((3, None, -1), ValueError, 'ncols must be'),
    ((3, 1.5), TypeError, 'nrows must be a whole'), ((True,), TypeError, 'n must be a whole')])
def test_impossible_grids(args, exc, match):
    with pytest.raises(exc, match=f'^get_grid: {match}'): get_grid(*args)
    assert not open_figures()

def test_get_grid_hides_what_is_over_and_keeps_the_rest():
    fig, axs = get_grid(5, title='five', weight='light', size=9)
    assert axs.shape == (2, 3) and [o.axison for o in axs.flat] == [True]*5+[False]
    assert fig.get_suptitle() == 'five' and fig._suptitle.get_weight() == 'light' and fig._suptitle.get_size() == 9
    assert open_figures() == 1

def test_get_grid_gives_an_array_even_for_one():
    assert get_grid(1)[1].shape == (1,) and get_grid(3, nrows=1)[1].shape == (3,)

@pytest.mark.parametrize('kwargs,size', [
    ({}, (6, 3)), (dict(imsize=1), (2, 1)), (dict(figsize=(4, 7)), (4, 7)), (dict(ncols=24), (12, .5))])
def test_subplots_are_sized_for_pictures(kwargs, size):
    fig, ax = subplots(**dict(nrows=1, ncols=2, suptitle='all') | kwargs)
    assert fig.get_size_inches() == pytest.approx(size) and fig.get_suptitle() == 'all'
    assert ax.shape == (kwargs.get('ncols', 2),)

def test_subplots_hand_on_keywords():
    _, axs = subplots(2, 2, sharex=True, squeeze=False, layout=None)
    assert axs[0,0].get_shared_x_axes().joined(axs[0,0], axs[1,1])

def test_the_course_can_call_with_its_own_signatures():
    assert list(inspect.signature(show_image).parameters)[:5] == ['im', 'ax', 'figsize', 'title', 'noframe']
    assert list(inspect.signature(show_images).parameters)[:4] == ['ims', 'nrows', 'ncols', 'titles']
    assert list(inspect.signature(get_grid).parameters)[:6] == ['n', 'nrows', 'ncols', 'title', 'weight', 'size']
    assert list(inspect.signature(subplots).parameters)[:5] == ['nrows', 'ncols', 'figsize', 'imsize', 'suptitle']

# many pictures

def drawn(axs): return [ax for ax in np.ravel(axs) if ax.get_images()]

@pytest.mark.parametrize('n', [1, 2, 101])
def test_all_images_are_drawn_in_one_figure(n):
    ims = torch.arange(n)[:,None,None].expand(n, 2, 2)
    axs = show_images(ims, imsize=.3)
    assert [ax.get_images()[0].get_array()[0,0] for ax in drawn(axs)] == list(range(n)) and open_figures() == 1
    axs.flat[0].figure.canvas.draw()

@pytest.mark.parametrize('titles,expected', [
    (None, ['', '', '']), (['a'], ['a', '', '']), ([], ['', '', '']), (['a', None, 0], ['a', '', '0']),
    ('abcdef', ['a', 'b', 'c']), (torch.tensor([3, 1, 2]), ['3', '1', '2']), (torch.tensor([3]), ['3', '', '']),
    (np.arange(9), ['0', '1', '2']), (range(3), ['0', '1', '2']),
    (pd.Series([5, 6, 7], index=[9, 8, 7]), ['5', '6', '7']),
    pytest.param(map(str, range(3)), ['0', '1', '2'])])
def test_titles_may_be_fewer_or_more_or_tensors(titles, expected):
    assert [ax.get_title() for ax in show_images([GREY]*3, titles=titles)] == expected

@pytest.mark.parametrize('ims', [
    (GREY for _ in range(3)), (GREY, Image.fromarray(RGB), chw(RGB)/256), chw(np.stack([GREY]*3, -1)),
    iter([GREY]*3)])
def test_images_may_come_in_any_iterable_and_mixed(ims): assert len(drawn(show_images(ims))) == 3

def test_figure_size_and_titles_of_the_figure():
    fig = show_images([GREY]*3, figsize=(4, 2), title='bold')[0].figure
    assert tuple(fig.get_size_inches()) == (4, 2) and fig.get_suptitle() == 'bold'
    assert show_images([GREY], suptitle='plain')[0].figure.get_suptitle() == 'plain'
    assert show_images([GREY]*4, ncols=4).shape == (4,) and show_images([GREY]*4, nrows=4, ncols=1).shape == (4,)

@pytest.mark.parametrize('ims', [[], (), torch.zeros(0, 1, 5, 5), iter([])])
def test_no_images(ims):
    with pytest.raises(ValueError, match='^show_images: got no images'): show_images(ims)
    assert not open_figures()

def test_a_bad_image_leaves_no_half_drawn_figure():
    with pytest.raises(ValueError): show_images([GREY, torch.zeros(2, 6, 5)])
    assert not open_figures()

# what a model made of it

CLEAN = torch.arange(3*30).float().view(3, 1, 6, 5)/90             # [3,1,6,5]

def images(axs): return [[np.asarray(ax.get_images()[0].get_array()) for ax in row] for row in axs]
def row_names(axs): return [ax.texts[0].get_text() for ax in axs[:,0]]

@pytest.mark.parametrize('n', [1, 2, 3])
@pytest.mark.parametrize('seen', [True, False])
def test_reconstructions_are_rows_on_one_scale(n, seen):
    clean, out = CLEAN[:n], CLEAN[:n].flip(-1)
    axs = show_reconstructions(clean, out, seen=clean*.5 if seen else None, titles=range(9))
    names = ['clean', 'seen', 'output', 'abs. error'] if seen else ['clean', 'output', 'abs. error']
    assert row_names(axs) == names and axs.shape == (len(names), n) and open_figures() == 1
    expected = dict(clean=clean, seen=clean*.5, output=out) | {'abs. error': (out-clean).abs()}
    for name, row in zip(names, images(axs)): assert np.allclose(row, expected[name][:,0])
    assert {ax.get_images()[0].get_clim() for ax in axs.flat} == {(0, 1)}
    assert [[ax.get_title() for ax in row] for row in axs] == [list('012')[:n]] + [['']*n]*(len(names)-1)
    axs.flat[0].figure.canvas.draw()

def test_an_error_of_one_is_white():
    ax = show_reconstructions(torch.zeros(1, 1, 6, 5), torch.ones(1, 1, 6, 5))[2,0]
    im = ax.get_images()[0]
    assert im.cmap(im.norm(im.get_array()[0,0])) == (1, 1, 1, 1)

@pytest.mark.parametrize('kwargs,clim,width', [
    (dict(vmin=-1, vmax=2), (-1, 2), 3.6), (dict(imsize=2), (0, 1), 6.6), (dict(imsize=None), (0, 1), 3.6),
    (dict(figsize=(9, 3)), (0, 1), 9), (dict(imsize=2, figsize=(9, 3)), (0, 1), 9)])
def test_reconstructions_hand_on_keywords(kwargs, clim, width):
    axs = show_reconstructions(CLEAN, CLEAN, **kwargs, title='run', cmap='magma')
    fig = axs[0,0].figure
    assert {ax.get_images()[0].get_clim() for ax in axs.flat} == {clim} and fig.get_size_inches()[0] == pytest.approx(width)
    assert fig.get_suptitle() == 'run' and cmap_of(axs[0,0]) == 'magma'

def test_many_reconstructions_shrink():
    fig = show_reconstructions(CLEAN[:1].expand(24, -1, -1, -1), CLEAN[:1].expand(24, -1, -1, -1))[0,0].figure
    assert fig.get_size_inches()[0] == pytest.approx(12.6)

def test_reconstructions_in_colour_half_precision_and_with_a_graph(caplog):
    clean = torch.rand(2, 3, 6, 5)
    out = ((clean*3-1).bfloat16()).requires_grad_()                # beyond [0,1], which imshow would complain of
    axs = show_reconstructions(clean, out*1)
    assert not caplog.records and axs.shape == (3, 2)
    assert np.allclose(images(axs)[2][0], (out.detach().float()-clean)[0].abs().clamp(0, 1).permute(1, 2, 0))

def test_what_was_seen_may_be_smaller_or_grey():
    clean = torch.rand(2, 3, 8, 8)
    axs = show_reconstructions(clean, clean, seen=clean[:, :1, ::2, ::2])
    assert images(axs)[1][0].shape == (4, 4)

def test_reconstructions_leave_their_tensors_alone():
    clean, out = CLEAN.clone(), CLEAN*2
    kept = out.clone()
    show_reconstructions(clean, out)
    assert torch.equal(clean, CLEAN) and torch.equal(out, kept)

@pytest.mark.parametrize('args,exc,what', [
    ((CLEAN, CLEAN[:1]), ValueError, 'out is float32 [1,1,6,5], but clean is float32 [3,1,6,5]'),
    ((CLEAN, CLEAN[..., 1:]), ValueError, 'out is float32 [3,1,6,4]'),
    ((CLEAN, CLEAN.expand(3, 3, 6, 5)), ValueError, 'out is float32 [3,3,6,5]'),
    ((CLEAN, CLEAN, CLEAN[:2]), ValueError, 'seen is float32 [2,1,6,5]'),
    ((CLEAN[0], CLEAN[0]), ValueError, 'clean must be a float tensor [N,C,H,W], got float32 [1,6,5]'),
    ((CLEAN.byte(), CLEAN), TypeError, 'bytes x/255'), ((CLEAN, None), TypeError, 'out must be'),
    ((CLEAN, CLEAN.numpy()), TypeError, 'out must be a float tensor [N,C,H,W], got numpy'),
    ((CLEAN, (CLEAN, CLEAN)), TypeError, 'out must be'), ((CLEAN, CLEAN, CLEAN.byte()), TypeError, 'seen must be')])
def test_reconstructions_that_do_not_fit(args, exc, what):
    with pytest.raises(exc) as e: show_reconstructions(*args)
    assert str(e.value).startswith('show_reconstructions: ') and what in str(e.value) and not open_figures()

def test_no_reconstructions():
    with pytest.raises(ValueError): show_reconstructions(CLEAN[:0], CLEAN[:0])
    assert not open_figures()

LOGITS = torch.tensor([[0., 2, 1], [3, 0, 0], [0, 1, 5]])         # guesses 1, 0, 2
TRUTH = torch.tensor([1, 2, 2])

@pytest.mark.parametrize('preds', [LOGITS, LOGITS.softmax(1), LOGITS.half().requires_grad_(), torch.tensor([1, 0, 2]),
                                   torch.tensor([1, 0, 2], dtype=torch.uint8)])
@pytest.mark.parametrize('names,titles', [
    (None, ['1', '0,\nnot 2', '2']), (['a', 'b', 'c'], ['b', 'a,\nnot c', 'c']), ('abcd', ['b', 'a,\nnot c', 'c']),
    ({0: 'a', 1: 'b', 2: 'c'}, ['b', 'a,\nnot c', 'c']), (['a', 'b', None], ['b', 'a,\nnot None', 'None'])])
def test_predictions_say_what_was_guessed_and_where_it_was_wrong(preds, names, titles):
    axs = show_predictions(CLEAN, preds, TRUTH, names)
    assert [str(ax.get_title()) for ax in axs] == titles and axs.shape == (3,)
    assert [ax.title.get_color() for ax in axs] == ['black', 'tab:red', 'black']

def test_predictions_hand_on_keywords():
    axs = show_predictions(CLEAN, LOGITS, TRUTH, nrows=2, imsize=2, title='run', vmin=0, vmax=9)
    assert axs.shape == (2, 2) and axs[0,0].figure.get_suptitle() == 'run' and tuple(axs[0,0].figure.get_size_inches()) == (4, 4)
    assert drawn(axs)[0].get_images()[0].get_clim() == (0, 9)
    assert show_predictions(list(CLEAN), LOGITS, TRUTH, figsize=(7, 2))[0].figure.get_size_inches().tolist() == [7, 2]

@pytest.mark.parametrize('args,exc,what', [
    ((CLEAN, LOGITS[:2], TRUTH), ValueError, 'got 3 pictures, 2 preds and 3 targs'),
    ((CLEAN, LOGITS, TRUTH[:2]), ValueError, 'got 3 pictures, 3 preds and 2 targs'),
    ((CLEAN[:1], LOGITS, TRUTH), ValueError, 'got 1 pictures'),
    ((CLEAN, LOGITS[:, :1], TRUTH), ValueError, 'must hold a score for each class'),
    ((CLEAN, LOGITS[:, 0], TRUTH), TypeError, 'preds must be an integer tensor [N], got float32 [3]. Pass logits'),
    ((CLEAN, LOGITS[None], TRUTH), TypeError, 'preds must be'), ((CLEAN, [1, 0, 2], TRUTH), TypeError, 'preds must be'),
    ((CLEAN, LOGITS, TRUTH.float()), TypeError, 'targs must be an integer tensor [N], got float32 [3]. Use yb.long()'),
    ((CLEAN, LOGITS, TRUTH[:,None]), ValueError, 'targs must be'), ((CLEAN, LOGITS, [1, 2, 2]), TypeError, 'targs must'),
    ((CLEAN, LOGITS, TRUTH, ['a', 'b']), ValueError, 'names has 2 texts and none for class 2'),
    ((CLEAN, LOGITS, TRUTH-2, list('abc')), ValueError, 'none for class -1')])
def test_predictions_that_do_not_fit(args, exc, what):
    with pytest.raises(exc) as e: show_predictions(*args)
    assert str(e.value).startswith('show_predictions: ') and what in str(e.value) and not open_figures()

# numbers

def html(*args, **kwargs): return pixel_table(*args, **kwargs).to_html()

def test_pixel_table_gives_the_same_bytes_twice(): assert html(GREY/7) == html(GREY/7) and html(GREY) != html(GREY//2)

@pytest.mark.parametrize('im,shown,absent', [
    (np.array([[0., .123]]), '>0.12<', '>0.123<'), (np.array([[0, 3.]]), '>3<', '>3.0'),
    (torch.tensor([[True, False]]), '>1<', 'True'), (torch.tensor([[.5, 1]]).bfloat16(), '>0.50<', '>0.5<'),
    (torch.tensor([[[7, 8]]]), '>8<', '>8.0'), (np.array([[float('nan'), 1]]), 'nan', None)])
def test_pixel_table_shows_decimals_only_where_there_are_some(im, shown, absent):
    res = html(im)
    assert shown in res and (absent is None or absent not in res)

def test_pixel_table_options():
    res = html(np.array([[0, .123456]]), digits=4, size=11)
    assert '>0.1235<' in res and 'font-size: 11pt' in res
    assert html(GREY, cmap='Reds') != html(GREY)

def test_equal_pixels_have_equal_shades_in_all_of_the_table():
    shades = pixel_table(np.array([[0, 5], [5, 9]]), cmap='Blues')._compute().ctx
    assert dict(shades[0, 1]) == dict(shades[1, 0]) != dict(shades[0, 0])

def test_pixel_table_of_a_flat_image_does_not_warn():
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        html(torch.zeros(3, 3))

@pytest.mark.parametrize('kwargs', [dict(cmap='Reds'), dict(size=12)])
def test_tables_that_look_different_have_different_ids(kwargs):
    assert pixel_table(GREY).uuid != pixel_table(GREY, **kwargs).uuid

@pytest.mark.parametrize('im', [RGB, chw(RGB), torch.zeros(64, 1, 6, 5), 'text', None])
def test_pixel_table_takes_one_grey_image(im):
    with pytest.raises((ValueError, TypeError), match='takes (one|an)'): pixel_table(im)

# losses

def curves(ax): return {o.get_label(): (o.get_xdata().tolist(), o.get_ydata().tolist()) for o in ax.get_lines()}

@pytest.mark.parametrize('train,valid,expected', [
    ([3, 2, 1, 1], [5, 4], {'train': ([1, 2, 3, 4], [3, 2, 1, 1]), 'valid': ([2, 4], [5, 4])}),
    ([], [5, 4], {'valid': ([1, 2], [5, 4])}), (None, torch.tensor([5.]), {'valid': ([1], [5])}),
    (torch.tensor([3., 2]), None, {'train': ([1, 2], [3, 2])}),
    ([torch.tensor(3.), np.float32(2), 1], [], {'train': ([1, 2, 3], [3, 2, 1])}),
    ((o for o in (3, 2)), None, {'train': ([1, 2], [3, 2])}),
    ([3.], [1, 2], {'train': ([1], [3]), 'valid': ([.5, 1], [1, 2])}),
    ([torch.tensor(3.).bfloat16()], None, {'train': ([1], [3])})])
def test_losses_are_drawn_where_they_belong(train, valid, expected):
    ax = plot_losses(train, valid)
    assert curves(ax) == expected and {o.get_text() for o in ax.get_legend().get_texts()} == set(expected)
    assert open_figures() == 1

@pytest.mark.parametrize('log', [False, True])
def test_losses_that_are_not_numbers_leave_a_gap(log):
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        ax = plot_losses([1, math.nan, math.inf, 2], [math.nan], log=log, xlabel='step', title='run')
        ax.figure.canvas.draw()
    assert ax.get_yscale() == ('log' if log else 'linear') and (ax.get_xlabel(), ax.get_title()) == ('step', 'run')

def test_losses_on_axes_of_ones_own():
    _, ax = plt.subplots()
    assert plot_losses([1, 2], ax=ax) is ax and open_figures() == 1

@pytest.mark.parametrize('args', [([],), (None,), ([], []), (torch.zeros(0), None)])
def test_no_losses(args):
    with pytest.raises(ValueError, match='^plot_losses: got no losses'): plot_losses(*args)
    assert not open_figures()

def test_losses_with_a_graph_do_not_warn():
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        plot_losses([nn.Parameter(torch.tensor(1.))*2])

@pytest.mark.parametrize('train,valid,x,expected', [
    ([3, 2, 1, 1], [5, 4], [10, 20, 30, 40], {'train': ([10, 20, 30, 40], [3, 2, 1, 1]), 'valid': ([20, 40], [5, 4])}),
    ([3, 2, 1, 1], None, torch.tensor([1., 10, 100, 1000]), {'train': ([1, 10, 100, 1000], [3, 2, 1, 1])}),
    ([], [5, 4], [.1, .2], {'valid': ([.1, .2], [5, 4])}), (None, [5], range(7, 8), {'valid': ([7], [5])}),
    ([3, 2], [], np.array([2, 1]), {'train': ([2, 1], [3, 2])})])
@pytest.mark.parametrize('logx', [False, True])
def test_losses_over_given_values(train, valid, x, expected, logx):
    ax = plot_losses(train, valid, x=iter(x), logx=logx, xlabel='learning rate')
    assert curves(ax) == expected and ax.get_xscale() == ('log' if logx else 'linear')
    ax.figure.canvas.draw()

def test_batches_are_counted_in_whole_numbers_on_either_axis():
    ax = plot_losses([1, 2, 3])
    ax.figure.canvas.draw()
    assert all(o==int(o) for o in ax.get_xticks())
    assert isinstance(plot_losses([1, 2, 3], logx=True).xaxis.get_major_locator(), matplotlib.ticker.LogLocator)
    assert any(o!=int(o) for o in plot_losses([1, 2], x=[.1, .4]).get_xticks())

@pytest.mark.parametrize('x,logx,what', [
    ([1], False, 'x has 1 values for 2 losses'), ([1, 2, 3], True, r'x=lrs\[:2\]'), ([], False, 'x has 0 values'),
    ([0, 1], True, 'no place for 0'), ([1, -2], True, 'no place for -2'), ([1, math.nan], True, 'no place for nan')])
def test_values_that_do_not_fit_the_losses(x, logx, what):
    with pytest.raises(ValueError, match=f'^plot_losses: .*{what}'): plot_losses([1, 2], x=x, logx=logx)
    assert not open_figures()
