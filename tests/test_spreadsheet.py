"Workbooks recalculated by engines that are not ours (PyPI `formulas`; LibreOffice where it is installed), and compared with PyTorch."
import random, re, shutil, subprocess, sys, warnings, zipfile
from copy import deepcopy
from itertools import product

import pytest
import torch
from openpyxl import load_workbook
from openpyxl.utils import get_column_letter, range_boundaries
from torch import nn

from miniai import cells as M
from miniai.cells import Calc
from miniai.cnn import FixedFlatten, simple_cnn
from miniai.conv import conv
from miniai.spreadsheet import Cells, a1, column_letters, to_xlsx, trace_precedents

office = shutil.which('soffice') or shutil.which('libreoffice')
needs_office = pytest.mark.skipif(not office, reason='LibreOffice is not installed')

# --- the engines: each returns, for a workbook, a function from an address on the sheet Network to what the cell shows
def by_formulas(path):
    formulas = pytest.importorskip('formulas')
    solution = formulas.ExcelModel().loads(str(path)).finish().calculate()
    def show(address):
        res = solution[f"'[{path.name}]NETWORK'!{address}"].value[0,0]
        return res if isinstance(res, str) else float(res)
    return show

def by_office(paths, folder):
    "All at once: the program starts slowly."
    profile = f'-env:UserInstallation={(folder/"profile").as_uri()}'
    subprocess.run([office, '--headless', profile, '--convert-to', 'xlsx:Calc MS Excel 2007 XML', '--outdir', folder/'out', *paths],
                   check=True, capture_output=True, timeout=120)
    def show(path):
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')                            # openpyxl drops LibreOffice's data bars
            ws = load_workbook(folder/'out'/path.name, data_only=True)['Network']
        return lambda address: ws[address].value
    return [show(o) for o in paths]

def read(show, cells):
    values = [show(cells[idx]) for idx in product(*map(range, cells.shape))]
    return torch.tensor(values, dtype=torch.float64).view(cells.shape)

def compare(show, layout, model, x):
    "Every number that the sheet shows, softmax, the class. Returns the classes of the layers: all of them lead to numbers that are shown."
    seen, x = set(), x[(None,)*(4-x.ndim)].double()
    assert torch.allclose(read(show, layout['image']), x[0])
    with torch.no_grad():
        for path, layer in M.check_layers(deepcopy(model).double().eval()):
            x = layer(x)
            seen.add(type(layer))
            if path in layout: assert torch.allclose(read(show, layout[path]), x.view(layout[path].shape), rtol=1e-9, atol=1e-9), path
    assert torch.allclose(read(show, layout['logits']), x.flatten(), atol=1e-9)
    assert torch.allclose(read(show, layout['probabilities']), x.flatten().softmax(0), atol=1e-9)
    return seen, x.argmax().item()

def class_of(show, layout): return str(show(layout['prediction'][()])).removesuffix('.0')

# --- random networks
def random_conv(rng, ni, dilations=(1, 1, 2, (2, 1))):
    groups = rng.choice([1, 1, ni])
    ks, padding = (rng.randint(1, 3), rng.randint(1, 3)), rng.choice([0, 1, (1, 0), 'same', 'valid'])
    stride = 1 if padding=='same' else rng.choice([1, 2, (1, 2)])
    return nn.Conv2d(ni, groups*rng.randint(1, 2), ks, stride, padding, rng.choice(dilations), groups, bias=rng.random()<.7)

def random_pool(rng):
    k, p, ceil = rng.choice([2, 3, (2, 3)]), rng.choice([0, 1]), rng.random()<.5
    return rng.choice([nn.MaxPool2d(k, 2, p, ceil_mode=ceil), nn.MaxPool2d(k), nn.AvgPool2d(k, 2, p, ceil, count_include_pad=rng.random()<.5),
                       nn.AvgPool2d(2, 1, divisor_override=3), nn.AdaptiveAvgPool2d((2, 3)), nn.AdaptiveMaxPool2d((3, 2))])

def random_net(seed):
    "A network of every kind of layer, and an image that it takes."
    rng, _ = random.Random(seed), torch.manual_seed(seed)
    act = lambda: rng.choice([nn.ReLU(inplace=True), nn.Sigmoid(), nn.SiLU(inplace=True), nn.LeakyReLU(1e-5), nn.LeakyReLU(2.), nn.Tanh()])
    c = rng.randint(1, 2)
    x, layers = torch.randn(c, rng.randint(4, 7), rng.randint(4, 7)), [act()] if rng.random()<.3 else []
    for _ in range(rng.randint(1, 2)):
        block = [random_conv(rng, c)]
        c = block[0].out_channels
        if rng.random()<.5: block.append(nn.BatchNorm2d(c, affine=rng.random()<.7))
        layers += [nn.Sequential(*block, act()), random_pool(rng)] if rng.random()<.5 else [*block, nn.Dropout2d(), act()]
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten()] if rng.random()<.4 else [nn.Identity(), nn.Flatten(), nn.Dropout(), nn.LazyLinear(4), act()]
    net = nn.Sequential(*layers, nn.LazyLinear(3))
    try:
        net.eval()(x[None].clone())                                     # lazy layers learn their sizes
        M.plan(net, x[None])
    except (RuntimeError, ValueError): return random_net(seed+1000)     # no window fits
    for m in net.modules():
        if isinstance(m, nn.BatchNorm2d):
            m.running_mean.normal_()
            m.running_var.uniform_(.5, 2)
    return net, x

def test_random_networks_by_formulas(tmp_path):
    seen = set()
    for seed in (0, 1, 2, 3, 4, 7, 10):                                # together, every kind of layer
        net, x = random_net(seed)
        layout = to_xlsx(net, x, tmp_path/'net.xlsx')
        show = by_formulas(tmp_path/'net.xlsx')
        classes, best = compare(show, layout, net, x)
        assert class_of(show, layout)==str(best)
        seen |= classes
    assert seen | {FixedFlatten} == set(M._known)

@pytest.mark.parametrize('head', ['flatten', 'pool', 'dense'])
def test_our_own_networks_become_workbooks(head, tmp_path):
    torch.manual_seed(1)
    model, x = simple_cnn((2, 4), head=head, size=8).eval(), torch.rand(1, 8, 8)
    layout = to_xlsx(model, x, tmp_path/'net.xlsx')
    show = by_formulas(tmp_path/'net.xlsx')
    classes, best = compare(show, layout, model, x)
    assert class_of(show, layout)==str(best) and (FixedFlatten in classes)==(head!='pool')

@needs_office
def test_random_networks_by_office(tmp_path):
    nets = [random_net(seed) for seed in range(16)]
    paths = [tmp_path/f'net{k}.xlsx' for k in range(len(nets))]
    layouts = [to_xlsx(*net, path) for net, path in zip(nets, paths)]
    seen = set()
    for show, layout, net in zip(by_office(paths, tmp_path), layouts, nets):
        classes, best = compare(show, layout, *net)
        assert class_of(show, layout)==str(best)
        seen |= classes
    assert seen | {FixedFlatten} == set(M._known)

def small_net():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 2, 3, 2, 1), nn.BatchNorm2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(18, 4), nn.Tanh(), nn.Linear(4, 3))
    net[1].running_var.uniform_(.5, 2)
    net[1].bias.data.fill_(1)                                          # keeps the ReLU open
    return net.eval(), torch.rand(1, 6, 6)

def changes():
    "(what is typed over, the same in PyTorch)"
    def weight(name, idx, v):
        def f(net, x): net.get_parameter(name).data[idx] = v
        return f
    def pixel(net, x): x[0,2,3] = 5
    def variance(net, x): net[1].running_var[1] = 9
    def dense(net, x): net[4].weight.data.view(4, 2, 3, 3)[3,1,2,0] = -7
    return [('image', (0, 2, 3), 5, pixel), ('0.weight', (1, 0, 2, 1), 4, weight('0.weight', (1, 0, 2, 1), 4)), ('0.bias', 0, -2, weight('0.bias', 0, -2)),
            ('1.weight', 0, 3, weight('1.weight', 0, 3)), ('1.running_var', 1, 9, variance), ('4.weight', (3, 1, 2, 0), -7, dense),
            ('6.weight', (2, 1, 0, 0), 6, weight('6.weight', (2, 1), 6))]

@pytest.mark.parametrize('name, idx, v, change', changes(), ids=lambda o: o if isinstance(o, str) else '')
def test_the_workbook_lives(tmp_path, name, idx, v, change):
    net, x = small_net()
    path = tmp_path/'net.xlsx'
    layout = to_xlsx(net, x, path)
    before = net(x[None]).detach()
    wb = load_workbook(path)
    wb['Network'][layout[name][idx]] = v
    wb.save(path)
    with torch.no_grad(): change(net, x)
    assert not torch.allclose(net(x[None]), before, atol=1e-3)         # the change matters
    show = by_formulas(path)
    _, best = compare(show, layout, net, x)
    assert class_of(show, layout)==str(best)

@needs_office
def test_a_whole_network_lives_in_office(tmp_path):
    torch.manual_seed(0)
    net, x = nn.Sequential(conv(1, 4), conv(4, 8, norm=nn.BatchNorm2d), conv(8, 8), nn.Flatten(), nn.Linear(128, 10)).eval(), torch.rand(28, 28)
    other, y = deepcopy(net), x.clone()
    paths = tmp_path/'net.xlsx', tmp_path/'changed.xlsx'
    layout = to_xlsx(net, x, paths[0])
    assert paths[0].stat().st_size < 200_000
    wb = load_workbook(paths[0])
    wb['Network'][layout['image'][0,14,14]] = 3
    wb['Network'][layout['0.0.weight'][2,0,1,1]] = 2
    wb['Network'][layout['4.bias'][6]] = 9
    wb.save(paths[1])
    y[14,14], other[0][0].weight.data[2,0,1,1], other[4].bias.data[6] = 3, 2, 9
    shows = by_office(paths, tmp_path)
    best = [compare(show, layout, *o)[1] for show, o in zip(shows, ((net, x), (other, y)))]
    assert [class_of(show, layout) for show in shows]==[str(o) for o in best] and best[1]==6

# --- the file
@pytest.fixture(scope='module')
def written(tmp_path_factory):
    net, x = small_net()
    path = tmp_path_factory.mktemp('book')/'net.xlsx'
    return path, to_xlsx(net, x, path, classes=['=1+1', 'a<b&"c"', 'ü']), net, x

def test_file(written):
    path, layout, *_ = written
    wb = load_workbook(path)
    assert wb.sheetnames==['Network', 'ReadMe'] and wb.active.title=='Network' and wb.calculation.fullCalcOnLoad
    assert not wb['ReadMe'].sheet_view.tabSelected                     # two selected sheets would be edited together
    assert wb['Network'].freeze_panes=='G4' and wb['Network'].conditional_formatting
    assert 'Trace Precedents' in ' '.join(str(o[0].value) for o in wb['ReadMe'])
    assert not [o for o in zipfile.ZipFile(path).namelist() if 'vba' in o.lower()]

def test_classes_are_text(written):
    path, layout, net, x = written
    ws = load_workbook(path)['Network']
    assert [ws.cell(5+i, 1).value for i in range(3)]==['=1+1', 'a<b&"c"', 'ü'] and ws['A5'].data_type!='f'
    assert by_formulas(path)(layout['prediction'][()])==['=1+1', 'a<b&"c"', 'ü'][net(x[None]).argmax()]

def test_formulas_are_plain(written):
    path, layout, *_ = written
    ws = load_workbook(path)['Network']
    formulas = [c.value for row in ws for c in row if c.data_type=='f']
    assert set(re.findall(r'[A-Z.]+(?=\()', ' '.join(formulas))) == {'MAX', 'SUMPRODUCT', 'SQRT', 'TANH', 'EXP', 'SUM', 'INDEX', 'MATCH'}
    name = {k: layout[k].block(0, fixed=True) for k in layout if k.startswith(('0.', '1.'))}
    conv = f"SUMPRODUCT(G5:I7,{name['0.weight']})+{name['0.bias']}"
    norm = f"({conv}-{name['1.running_mean']})*{name['1.weight']}/SQRT({name['1.running_var']}+1E-05)+{name['1.bias']}"
    assert ws[layout['2'][0,0,0]].value == f'=MAX(0,{norm})'
    assert ws[layout['5'][1,0,0]].value.count('SUMPRODUCT')==2 and ws[layout['6'][1,0,0]].value.count('*')==4

@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_numbers_have_all_digits(tmp_path, dtype):
    net, x = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(8, 2)).to(dtype), torch.rand(1, 4, 4).to(dtype)
    layout = to_xlsx(net, x, tmp_path/'net.xlsx')
    ws = load_workbook(tmp_path/'net.xlsx')['Network']
    for k, t in (('image', x), *net.named_parameters()):
        got = read(lambda address: ws[address].value, layout[k])
        assert torch.allclose(got, t.detach().double().view(layout[k].shape), rtol=1e-15, atol=0)
        if dtype!=torch.float64: assert torch.equal(got.to(dtype), t.view(layout[k].shape))

@pytest.mark.parametrize('form', [lambda x: x, lambda x: x[None], lambda x: x[None,None], lambda x: x.double(), lambda x: x.t().contiguous().t()])
def test_forms_of_an_image(tmp_path, form):
    net, x = small_net()
    layout = to_xlsx(net, form(x[0]), str(tmp_path/'new'/'net.xlsx'))  # makes the folder
    ws = load_workbook(tmp_path/'new'/'net.xlsx')['Network']
    assert torch.equal(read(lambda o: ws[o].value, layout['image']).float(), x)

def test_the_model_stays_as_it_was(tmp_path):
    net, x = small_net()
    net.train()
    before, copy, rng = deepcopy(net.state_dict()), x.clone(), torch.get_rng_state()
    to_xlsx(net, x, tmp_path/'net.xlsx')
    assert all(torch.equal(v, before[k]) and v.dtype==before[k].dtype for k, v in net.state_dict().items()) and torch.equal(x, copy)
    assert all(m.training for m in net.modules()) and torch.equal(rng, torch.get_rng_state())
    assert all(p.grad is None and p.requires_grad for p in net.parameters())

def test_layers_used_twice(tmp_path):
    act, same = nn.ReLU(), nn.Conv2d(1, 1, 3, padding=1)
    net, x = nn.Sequential(same, act, nn.Sequential(same, act), nn.AdaptiveAvgPool2d(1), nn.Flatten()), torch.rand(5, 5)
    layout = to_xlsx(net, x, tmp_path/'net.xlsx')
    assert layout['0.weight'][()]!=layout['2.0.weight'][()]
    compare(by_formulas(tmp_path/'net.xlsx'), layout, net, x)

def test_subclasses(tmp_path):
    class Plain(nn.ReLU): pass
    class Own(nn.ReLU):
        def forward(self, x): return x
    net = lambda act: nn.Sequential(nn.Conv2d(1, 2, 3), act, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    to_xlsx(net(Plain()), torch.rand(4, 4), tmp_path/'net.xlsx')
    with pytest.raises(TypeError, match=r"layer '1' \(Own\) has no formula"): to_xlsx(net(Own()), torch.rand(4, 4), tmp_path/'net.xlsx')

# --- errors
gap = nn.AdaptiveAvgPool2d(1), nn.Flatten()
seq, im = nn.Sequential, torch.rand(1, 8, 8)
bad = [
    (seq(seq(nn.Conv2d(1, 2, 3), nn.GELU()), *gap), im, {}, TypeError, r"layer '0\.1' \(GELU\) has no formula\. Known are Conv2d, .*softmax"),
    (seq(*gap, nn.Softmax(1)), im, {}, TypeError, r"layer '2' \(Softmax\)"),
    (nn.GRU(4, 1), im, {}, TypeError, r"layer 'model' \(GRU\)"),
    (seq(nn.ConvTranspose2d(1, 2, 3), *gap), im, {}, TypeError, r"layer '0' \(ConvTranspose2d\)"),
    (seq(nn.Conv2d(1, 2, 3, padding=1, padding_mode='circular'), *gap), im, {}, TypeError, r"layer '0': Conv2d with padding_mode='circular'"),
    (seq(nn.MaxPool2d(2, dilation=2), *gap), im, {}, ValueError, r"\(MaxPool2d\) has holes: use dilation=1"),
    (seq(nn.AdaptiveAvgPool2d(3), *gap), im, {}, ValueError, r"layer '0': AdaptiveAvgPool2d.* cannot cut 8 places into equal windows"),
    (seq(nn.MaxPool2d(2, return_indices=True), *gap), im, {}, ValueError, 'return_indices'),
    (seq(nn.BatchNorm2d(1, track_running_stats=False), *gap), im, {}, ValueError, 'no running statistics'),
    (lambda x: x, im, {}, TypeError, 'model must be an nn.Module'),
    (seq(*gap), im.numpy(), {}, TypeError, 'image must be a float tensor, got numpy'),
    (seq(*gap), (im*255).byte(), {}, TypeError, r'image\.float\(\)/255'),
    (seq(*gap), im.repeat(3, 1, 1, 1), {}, ValueError, r'one image, .*got float32 \[3,1,8,8\].*xb\[0\]'),
    (seq(*gap), im[0,0], {}, ValueError, r'got float32 \[8\]'),
    (seq(*gap), im[:,:0], {}, ValueError, r'got float32 \[1,0,8\]'),
    (seq(*gap), im/0, {}, ValueError, 'image holds NaN or infinity'),
    (seq(nn.Conv2d(1, 2, 3, device='meta'), *gap), im, {}, ValueError, r'0\.weight is on the meta device'),
    (seq(nn.Conv2d(3, 2, 3), *gap), im, {}, ValueError, r"layer '0', Conv2d.* does not take float64 \[1,1,8,8\]\. Look at its channels"),
    (seq(nn.Conv2d(1, 2, 3), *gap), im.repeat(3, 1, 1), {}, ValueError, r"layer '0', Conv2d.* does not take float64 \[1,3,8,8\]\. Look at its channels"),
    (seq(nn.Conv2d(1, 2, 9), *gap), im, {}, ValueError, r"layer '0': Conv2d.* has no room on a map of \(8, 8\)"),
    (seq(nn.Conv2d(1, 2, 3), nn.Linear(6, 3)), im, {}, ValueError, r"layer '1': Linear takes a row of numbers\. Put nn\.Flatten\(\)"),
    (seq(nn.Flatten(), nn.Linear(9, 3)), im, {}, ValueError, r"layer '1', Linear.* does not take float64 \[1,64\]"),
    (seq(nn.Flatten(), nn.AdaptiveAvgPool2d(1)), im, {}, ValueError, r"layer '1', AdaptiveAvgPool2d.* takes \[N,C,H,W\]"),
    (seq(nn.Flatten(2), *gap), im, {}, ValueError, r"layer '0': Flatten.* makes no row of numbers"),
    (seq(nn.Conv2d(1, 2, 3)), im, {}, ValueError, r'makes float64 \[1,2,6,6\] of this image.*AdaptiveAvgPool2d'),
    (seq(), im, {}, ValueError, r'makes float64 \[1,1,8,8\]'),
    (seq(*gap), im, dict(classes=['a', 'b']), ValueError, '2 names for 1 classes'),
    (seq(nn.Conv2d(1, 5, 1), *gap), im, dict(max_cells=100), ValueError, r'399 numbers, more than max_cells=100'),
    (seq(nn.Conv2d(300, 1, 3), nn.Flatten()), torch.rand(300, 3, 3), {}, ValueError, r"'0' does not fit into a sheet: a formula takes 1\d,\d{3} characters.*fewer channels"),
    (seq(*gap), torch.rand(1, 17_000), {}, ValueError, r"'image' does not fit into a sheet: .*16384"),
]

@pytest.mark.parametrize('model, image, kw, exc, words', bad)
def test_errors_come_before_the_file(tmp_path, model, image, kw, exc, words):
    path = tmp_path/'net.xlsx'
    path.write_text('old')
    with pytest.raises(exc, match=f'^to_xlsx: .*{words}'): to_xlsx(model, image, path, **kw)
    assert path.read_text()=='old' and [o.name for o in tmp_path.iterdir()]==['net.xlsx']

def test_weights_that_are_no_numbers(tmp_path):
    net, x = small_net()
    net[0].weight.data[0,0,0,0] = float('nan')
    with pytest.raises(ValueError, match=r'0\.weight holds NaN'): to_xlsx(net, x, tmp_path/'net.xlsx')
    net[0].weight.data[0,0,0,0] = 1e30
    net[4].weight.data.fill_(1e30)
    net[6].weight.data.fill_(3e38)
    net = net.double()
    for p in net.parameters(): p.data *= 1e200
    with pytest.raises(ValueError, match=r"layer '\d' gives NaN or infinity"): to_xlsx(net, x, tmp_path/'net.xlsx')

@pytest.mark.parametrize('name', ['net', 'net.xls', 'net.xlsm', ''])
def test_path_must_be_a_workbook(tmp_path, name):
    with pytest.raises(ValueError, match=r'path must end in \.xlsx'): to_xlsx(*small_net(), tmp_path/name)

# --- addresses
def test_addresses_equal_openpyxl():
    assert [column_letters(n) for n in range(1, 16_385)]==[get_column_letter(n) for n in range(1, 16_385)]
    rng = random.Random(0)
    for _ in range(200):
        row, col, h, w = (rng.randint(1, 9000) for _ in range(4))
        if col+w-1<=16_384: assert range_boundaries(a1(row, col, h, w))==(col, row, col+w-1, row+h-1)
        assert a1(row, col, fixed=True)==f'${get_column_letter(col)}${row}'

@pytest.mark.parametrize('f, exc', [(lambda: column_letters(0), ValueError), (lambda: column_letters(1.), TypeError), (lambda: a1(0, 1), ValueError),
                                    (lambda: a1(1, 0), ValueError), (lambda: a1(1_048_576, 1, 2), ValueError), (lambda: a1(1, 16_384, 1, 2), ValueError)])
def test_addresses_stay_on_the_sheet(f, exc):
    with pytest.raises(exc, match=r'must be'): f()

def test_cells_are_strides():
    t = torch.arange(5000).view(50, 100)                               # a sheet whose numbers are their places
    for shape, steps, view in [((4, 3, 5), [(4, 0), (1, 0), (0, 1)], lambda a: a.as_strided((4, 3, 5), (400, 100, 1), 203)),
                               ((2, 3, 2, 2), [(7, 0), (0, 4), (2, 0), (0, 2)], lambda a: a.as_strided((2, 3, 2, 2), (700, 4, 200, 2), 203))]:
        cells = Cells(shape, 3, 4, steps)
        for idx in product(*map(range, shape)):
            row, col = cells.at(*idx)
            assert t[row-1,col-1]==view(t)[idx] and cells[idx]==a1(row, col)
        col0, row0, col1, row1 = range_boundaries(cells[1])
        assert t[row0-1:row1,col0-1:col1].min()==view(t)[1].min() and t[row0-1:row1,col0-1:col1].max()==view(t)[1].max()
        assert len(list(cells))==shape[0]                              # one block for each first index
        for idx in ((shape[0],), (-1,), (0,)*5, (0, 99)):
            with pytest.raises(IndexError, match='is no index of'): cells[idx]
    assert Cells([], 2, 3, [])[()]=='C2'

# --- arrows
@pytest.mark.parametrize('seed', range(6))
def test_precedents_are_where_gradients_are(tmp_path, seed):
    rng, _ = random.Random(seed), torch.manual_seed(seed)
    layers, c = [], 2
    for _ in range(3):
        layers += [random_conv(rng, c, [1]), nn.ReLU()]                # arrows point at holes too
        c = layers[-2].out_channels
        if rng.random()<.5: layers.append(nn.AvgPool2d(2, 1, padding=1))
    body = nn.Sequential(*layers)
    for p in body.parameters(): p.data.abs_()                          # so nothing cancels, and every ReLU is open
    x = torch.rand(2, 11, 10, requires_grad=True)
    try: out = body(x[None])[0]
    except RuntimeError: pytest.skip('no window fits')
    layout = to_xlsx(nn.Sequential(body, nn.AdaptiveAvgPool2d(1), nn.Flatten()), x, tmp_path/'net.xlsx')
    ws = load_workbook(tmp_path/'net.xlsx')['Network']
    pixels = {layout['image'].at(*idx): idx for idx in product(*map(range, x.shape))}
    last = layout[f'0.{len(layers)-1}']
    for idx in [(0, 0, 0), tuple(n-1 for n in out.shape), tuple(n//2 for n in out.shape)]:
        grad, = torch.autograd.grad(out[idx], x, retain_graph=True)
        seen = {pixels[o] for level in trace_precedents(ws, last[idx]) for o in level if o in pixels}
        assert seen==set(map(tuple, grad.nonzero().tolist()))

def test_precedents_of_a_number():
    from openpyxl import Workbook
    ws = Workbook().active
    ws['A1'], ws['B1'], ws['B2'], ws['C1'], ws['D1'] = 1, '=A1', 'A1', '=SUM(B1:B2,$A$1)*2', '=C1+B1'
    assert list(trace_precedents(ws, 'A1'))==[] and list(trace_precedents(ws, 'B2'))==[]
    assert list(trace_precedents(ws, 'D1'))==[{(1, 3), (1, 2)}, {(1, 2), (2, 2), (1, 1)}, {(1, 1)}]

# --- our own little engine
def test_calc_agrees_with_another_engine(tmp_path):
    for seed in (0, 1, 2, 3):
        net, x = random_net(seed)
        layout = to_xlsx(net, x, tmp_path/'net.xlsx')
        calc = Calc(load_workbook(tmp_path/'net.xlsx')['Network'])
        assert str(calc[layout['prediction'][()]])==str(compare(lambda address: calc[address], layout, net, x)[1])

@pytest.mark.parametrize('formula, words', [('=HYPERLINK("x")', 'HYPERLINK'), ('=A1&"x"', 'is not known'), ('="__import__"', 'is not known'), ('=A1.real', 'is not known'),
                                            ('=Sheet2!A1', 'is not known'), ('=__import__("os")', 'is not known'), ('=SUM(A1:B1)%', 'is not known'), ("='a'!A1", 'is not known'), ('={1,2}', 'is not known')])
def test_calc_runs_nothing_else(formula, words):
    from openpyxl import Workbook
    ws = Workbook().active
    ws['A1'], ws['B1'], ws['C1'] = 1, 2, formula
    with pytest.raises(ValueError, match=f'^Calc: .*{words}'): Calc(ws)['C1']

# --- openpyxl is an extra
def test_without_openpyxl(tmp_path, monkeypatch):
    net, x = small_net()
    to_xlsx(net, x, tmp_path/'net.xlsx')
    ws = load_workbook(tmp_path/'net.xlsx')['Network']
    for k in [k for k in sys.modules if k.split('.')[0]=='openpyxl']: monkeypatch.setitem(sys.modules, k, None)
    monkeypatch.setitem(sys.modules, 'openpyxl', None)                 # importing it raises ImportError
    for f in (lambda: to_xlsx(net, x, tmp_path/'new.xlsx'), lambda: next(trace_precedents(ws, 'G5')), lambda: Calc(ws)['Z5']):
        with pytest.raises(ImportError, match=r"openpyxl, which is not installed.*pip install -e '\.\[sheet\]'"): f()
    assert not (tmp_path/'new.xlsx').exists()

def test_modules_do_not_need_openpyxl():
    code = "import sys; sys.modules['openpyxl'] = None; import miniai.spreadsheet as s; print(s.a1(3, 2), s.Cells([2], 1, 1, [(1, 0)])[1], s.column_letters(27))"
    assert subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True).stdout.split()==['B3', 'A2', 'AA']
