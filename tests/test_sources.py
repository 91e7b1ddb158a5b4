"Damaged files, lying heads, hostile pickles, an absent hub, and a cache that is never trusted and never half-written."
import gzip, io, os, pickle, struct, time, tracemalloc, warnings
from pathlib import Path

import datasets as hf
import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image

from miniai import sources
from miniai.sources import ImageData, cut, load_tensors, read_idx


rng = np.random.RandomState(0)

def pixels(*shape): return rng.randint(0, 256, shape, dtype=np.uint8)

# IDX files

def idx_bytes(a, dims=None, magic=None):
    dims = a.shape if dims is None else dims
    return (magic or bytes([0, 0, 8, len(dims)])) + b''.join(int(n).to_bytes(4, 'big') for n in dims) + a.tobytes()

def write_idx(path, *args, **kwargs):
    path.write_bytes(gzip.compress(idx_bytes(*args, **kwargs), 0))     # as long as what is in it
    return path

IMS = pixels(5, 4, 3)
GOOD = gzip.compress(idx_bytes(IMS))

@pytest.mark.parametrize('a', [IMS, pixels(7), pixels(0, 4, 3), pixels(0), pixels(1, 1, 1), pixels(70_000)],
    ids=lambda a: str(a.shape))
def test_idx_round_trip(tmp_path, a):
    with warnings.catch_warnings():
        warnings.simplefilter('error')                            # torch warns of memory that must not be written to
        res = read_idx(str(write_idx(tmp_path/'x.gz', a)), a.ndim)
    assert res.dtype == torch.uint8 and np.array_equal(res, a) and res.shape == a.shape
    res.zero_()                                                   # the tensor may be written to

HEAD = gzip.compress(idx_bytes(IMS)[:10])
BAD_IDX = {
    'empty file': (b'', 'it ends after 0 bytes'), 'nothing inside': (gzip.compress(b''), 'it ends after 0 bytes'),
    'ends in the head': (HEAD, 'it ends after 10 bytes'), 'not gzip': (b'<html>404</html>', 'Not a gzipped file'),
    'unpacked': (idx_bytes(IMS), 'Not a gzipped file'),
    'labels for images': (gzip.compress(idx_bytes(pixels(99))), 'begins with 00000801, not 00000803'),
    'of int32': (gzip.compress(idx_bytes(IMS, magic=b'\0\0\x0c\3')), 'begins with 00000c03'),
    'one byte short': (gzip.compress(idx_bytes(IMS)[:-1]), r'promises \[5, 4, 3\], 60 bytes; fewer follow'),
    'one byte long': (gzip.compress(idx_bytes(IMS)+b'!'), '60 bytes; more follow'), 'cut': (GOOD[:-20], 'ended before'),
    'no checksum': (GOOD[:-8], 'ended before'), 'rubbish after it': (GOOD+b'rubbish', 'Not a gzipped file'),
    'wrong checksum': (GOOD[:-8]+bytes(4)+GOOD[-4:], 'CRC'),
    'bits flipped': (GOOD[:20]+bytes(o^255 for o in GOOD[20:])[:-8]+GOOD[-8:], 'Error'),
    'a terabyte promised': (gzip.compress(idx_bytes(IMS, dims=(2**32-1, 16, 16))), 'more than the file can hold')}

@pytest.mark.parametrize('data,why', BAD_IDX.values(), ids=BAD_IDX.keys())
def test_damaged_idx_file_is_named_and_refused(tmp_path, data, why):
    path = tmp_path/'x.gz'
    path.write_bytes(data)
    with pytest.raises(ValueError, match=f'x.gz is damaged or no IDX file: .*{why}.*Fetch it again') as e:
        read_idx(path, 3)
    assert str(e.value).startswith(str(path))

def test_a_flipped_bit_is_noticed_or_harmless(tmp_path):
    path = tmp_path/'x.gz'
    for i in range(0, 8*len(GOOD), 5):                            # every byte, in one bit or two
        bad = bytearray(GOOD)
        bad[i//8] ^= 1<<(i%8)
        path.write_bytes(bad)
        try: assert np.array_equal(read_idx(path, 3), IMS)
        except ValueError: pass

def test_no_file_and_a_folder(tmp_path):
    with pytest.raises(IsADirectoryError): read_idx(tmp_path, 3)
    with pytest.raises(FileNotFoundError, match='none.gz'): read_idx(tmp_path/'none.gz', 3)

def peak_memory(f):
    tracemalloc.start()
    try:
        with pytest.raises(ValueError): f()
        return tracemalloc.get_traced_memory()[1]
    finally: tracemalloc.stop()

@pytest.mark.parametrize('dims', [
    (2**32-1,)*3, (2**31, 1, 1),
    pytest.param((300, 1000, 1000))])
def test_a_lying_head_costs_no_memory(tmp_path, dims):
    path = write_idx(tmp_path/'x.gz', pixels(300_000), dims=dims)
    assert peak_memory(lambda: read_idx(path, 3)) < 10e6

# folders of files: helpers

FILES = [
    'train-images-idx3-ubyte.gz', 'train-labels-idx1-ubyte.gz', 't10k-images-idx3-ubyte.gz',
    't10k-labels-idx1-ubyte.gz']

def write_mnist(folder, n=12, m=4, classes=10, side=28, seed=0):
    "The four files, and what should be read from them."
    r = np.random.RandomState(seed)
    parts = [r.randint(0, 256, (n, side, side), np.uint8), r.randint(0, classes, n).astype(np.uint8),
             r.randint(0, 256, (m, side, side), np.uint8), r.randint(0, classes, m).astype(np.uint8)]
    folder.mkdir(parents=True, exist_ok=True)
    for name, a in zip(FILES, parts): write_idx(folder/name, a)
    return parts

@pytest.fixture
def data(tmp_path, monkeypatch):
    "An empty folder that MINIAI_DATA names."
    res = tmp_path/'data'
    res.mkdir()
    monkeypatch.setenv('MINIAI_DATA', str(res))
    return res

def sets(d): return (*d.train, *d.valid, *d.test)

def same(a, b):
    tensors = zip(sets(a), sets(b), strict=True)
    return a.classes==b.classes and a.source==b.source and all(torch.equal(u, v) for u, v in tensors)

def check_form(d, channels, side):
    "What every dataset promises."
    assert isinstance(d, ImageData) and all(isinstance(o, str) for o in d.classes) and isinstance(d.classes, list)
    for x, y in (d.train, d.valid, d.test):
        assert len(x) and x.dtype == torch.uint8 and y.dtype == torch.int64 and x.shape == (len(y), channels, side, side)
        assert y.ndim == 1
        assert x.is_contiguous() and y.is_contiguous() and 0 <= y.min() and y.max() < len(d.classes)

def check_content(d, x, y, xt, yt):
    "The published training images are in train or valid, in order, and the published test images are the test set."
    held = max(1, len(x)//10)
    (tx, ty), (vx, vy) = cut((torch.tensor(x), torch.tensor(y)), held)
    assert len(vx) == held and sorted([*d.train[1].tolist(), *d.valid[1].tolist()]) == sorted(np.asarray(y).tolist())
    for got, want in zip(sets(d), (tx, ty, vx, vy, xt, yt), strict=True):
        assert np.array_equal(got.squeeze(1) if got.ndim==4 and got.shape[1]==1 else got, want)

# MNIST and its relatives

@pytest.mark.parametrize('name,first,last', [('mnist', '0', '9'), ('fashion_mnist', 'T-shirt/top', 'Ankle boot')])
@pytest.mark.parametrize('source', ['auto', 'local'])
def test_four_files(data, name, first, last, source):
    parts = write_mnist(data/name)
    for _ in range(2):                                            # decoded, then from the cache
        d = load_tensors(name, source)
        check_form(d, 1, 28)
        check_content(d, *parts)
        assert (d.classes[0], d.classes[-1], len(d.classes), d.source) == (first, last, 10, 'MINIAI_DATA')

@pytest.mark.parametrize('missing', [FILES[:1], FILES[1:3], FILES])
def test_missing_files_are_named(data, missing):
    write_mnist(data/'mnist')
    for o in missing: (data/'mnist'/o).unlink()
    with pytest.raises(FileNotFoundError) as e: load_tensors('mnist')
    assert str(data/'mnist') in str(e.value) and [o for o in FILES if o in str(e.value)] == missing

@pytest.mark.parametrize('file,content,match', [
    (1, pixels(3)%10, 'mnist: train has 12 images but 3 labels'),
    (3, pixels(9)%10, 'mnist: test has 4 images but 9 labels'),
    (1, np.full(12, 10, np.uint8), 'mnist: train has labels from 10 to 10, but 10 classes'),
    (3, np.arange(4, dtype=np.uint8)*80, 'labels from 0 to 240'),
    (0, pixels(0, 28, 28), 'train has 0 images but 12 labels'), (0, pixels(12), 't.*train-images.* is damaged'),
    (1, IMS, 'train-labels.* is damaged')])
def test_files_that_do_not_fit_together(data, file, content, match):
    write_mnist(data/'mnist')
    write_idx(data/'mnist'/FILES[file], content)
    for _ in range(2):                                            # and it is not kept
        with pytest.raises(ValueError, match=match): load_tensors('mnist', standin='digits')

def test_no_images_at_all(data):
    write_mnist(data/'mnist', n=0)
    with pytest.raises(ValueError, match='mnist: train has no images'): load_tensors('mnist')

# MINIAI_DATA

@pytest.mark.parametrize('make', [lambda p: None, lambda p: p.write_text('a file')])
def test_miniai_data_that_is_no_folder(tmp_path, monkeypatch, make):
    make(tmp_path/'d')
    monkeypatch.setenv('MINIAI_DATA', str(tmp_path/'d'))
    with pytest.raises(NotADirectoryError,
        match=r'MINIAI_DATA=.*d is not a folder. Set it to the folder that holds mnist/'):
        load_tensors('mnist', standin='digits')

def test_a_file_where_the_folder_of_the_dataset_should_be(data):
    (data/'mnist').write_text('x')
    with pytest.raises(NotADirectoryError, match='must be a folder with the files of mnist'):
        load_tensors('mnist', standin='digits')

@pytest.mark.parametrize('cwd', ['.', 'nbs'])
def test_a_relative_folder_counts_from_here_or_from_one_above(tmp_path, monkeypatch, cwd):
    write_mnist(tmp_path/'own'/'mnist')
    (tmp_path/'nbs').mkdir()
    monkeypatch.chdir(tmp_path/cwd)
    monkeypatch.setenv('MINIAI_DATA', 'own')
    assert load_tensors('mnist').source == 'MINIAI_DATA'

def test_digits_need_no_folder_and_an_empty_variable_is_none(monkeypatch):
    monkeypatch.setenv('MINIAI_DATA', '/no/such/folder')
    for source in ('auto', 'local', 'hub'): assert load_tensors('digits', source).source == 'scikit-learn'
    monkeypatch.setenv('MINIAI_DATA', '')
    with pytest.raises(FileNotFoundError, match=r'MINIAI_DATA.*not set'): load_tensors('mnist', 'local')

def test_digits():
    d = load_tensors('digits')
    check_form(d, 1, 28)
    assert [len(o) for o, _ in d[:3]] == [1279, 258, 260] and d.classes == [str(i) for i in range(10)]
    assert d.train[0].max() == 255 and d.train[0].min() == 0 and same(d, sources._digits())

def test_no_form_of_the_digits_is_torn():
    from sklearn.datasets import load_digits
    places = {}                                                   # where in the file an image may stand
    for i, im in enumerate(sources.F.interpolate(torch.tensor(load_digits().images, dtype=torch.float32)[:,None]/16, size=(28,28),
                           mode='bicubic').clamp(0, 1).mul(255).round().byte()): places.setdefault(im.numpy().tobytes(), []).append(i)
    form = lambda i: sum(i>=b for b in sources._form_begins)
    found = [{form(i) for im in x for i in (places[im.numpy().tobytes()])} for x, _ in load_tensors('digits')[:3]]
    assert [len(o) for o in found] == [10, 2, 2] and len(set.union(*found)) == 14

# the cut

N = 40
PAIR = torch.arange(N), torch.arange(N)*10
GROUPS = torch.tensor([7]*3 + [-2]*9 + [5]*1 + [0]*12 + [9]*5 + [3]*10)

@pytest.mark.parametrize('groups', [GROUPS, GROUPS[torch.randperm(N, generator=torch.Generator().manual_seed(1))], GROUPS.tolist(),
                                    GROUPS.numpy(), GROUPS.float()/2])
@pytest.mark.parametrize('seed', range(5))
@pytest.mark.parametrize('n', [1, 4, 13])
def test_cut_keeps_groups_whole(groups, seed, n):
    rest, held = cut(PAIR, n, groups, seed)
    groups = torch.as_tensor(groups)
    inside = [set(groups[o].tolist()) for o, _ in (rest, held)]
    assert not inside[0] & inside[1] and inside[0] and n <= len(held[0]) < n+12
    for x, y in (rest, held): assert torch.equal(y, x*10) and torch.equal(x, x.sort()[0])
    assert sorted([*rest[0].tolist(), *held[0].tolist()]) == list(range(N))

def test_cut_takes_no_group_too_many():
    for seed in range(20):
        _, (x, _) = cut(PAIR, 8, GROUPS, seed)
        sizes = GROUPS[x].unique(return_counts=True)[1]
        assert len(x) - sizes.max() < 8 <= len(x)                 # without one of them it is not enough

def test_cut_is_seeded_and_leaves_random_numbers_alone():
    state = torch.get_rng_state()
    a, b, c = [cut(PAIR, 10, seed=s)[1][0].tolist() for s in (0, 0, 1)]
    assert a == b != c and len(a) == 10 and a == cut(PAIR, 10)[1][0].tolist()
    assert torch.equal(torch.get_rng_state(), state)

def test_a_cut_copies():
    x, y = PAIR[0].clone(), PAIR[1].clone()
    for part in cut((x, y), 5): part[0].zero_()
    assert torch.equal(x, PAIR[0])

@pytest.mark.parametrize('args,exc,match', [
    (((PAIR[0], PAIR[1][:-1]), 3), ValueError, '40 images but 39 labels'), ((PAIR, 0), ValueError, 'n must be at least 1'),
    ((PAIR, 2.5), TypeError, 'n must be a whole number'), ((PAIR, 40), ValueError, 'none would be left'),
    ((PAIR, 41), ValueError, 'none would be left'), ((PAIR, 1, [0]*40), ValueError, '1 groups, none would be left'),
    ((PAIR, 3, GROUPS[:-1]), ValueError, r'one group for each of 40 images, got int64 \[39\]'),
    ((PAIR, 3, GROUPS[:,None]), ValueError, r'got int64 \[40,1\]')])
def test_what_cannot_be_cut(args, exc, match):
    with pytest.raises(exc, match=f'^cut: .*{match}'): cut(*args)

# CIFAR

class Python2Pickler(pickle._Pickler):
    "Writes every string as Python 2 did, which is how CIFAR's own files are written."
    dispatch = dict(pickle._Pickler.dispatch)
    def _string(self, s):
        raw = s.encode('latin1') if isinstance(s, str) else s
        self.write(b'T' + struct.pack('<i', len(raw)) + raw)
        self.memoize(s)
    dispatch[str] = dispatch[bytes] = _string

def python3(o): return pickle.dumps(o, protocol=2)

def python2(o):
    f = io.BytesIO()
    Python2Pickler(f, protocol=2).dump(o)
    return f.getvalue().replace(b'numpy._core.', b'numpy.core.')

def write_cifar(folder, name, dump=python3):
    "Files as from Toronto, three images each; and all images and labels in order."
    folder.mkdir(parents=True)
    tens = name=='cifar10'
    files = [*(f'data_batch_{i}' for i in range(1, 6)), 'test_batch'] if tens else ['train', 'test']
    rows, labels = [], []
    for f in files:
        data, y = pixels(3, 3072), rng.randint(0, 10 if tens else 100, 3).tolist()
        extra = {'labels': y} if tens else {'fine_labels': y, 'coarse_labels': [0]*3}
        (folder/f).write_bytes(dump({'batch_label': f, 'data': data, 'filenames': ['a.png']*3, **extra}))
        rows.append(data); labels += y
    names = [f'class {i}' for i in range(10 if tens else 100)]
    meta = {'label_names': names} if tens else {'fine_label_names': names, 'coarse_label_names': ['x']*20}
    (folder/('batches.meta' if tens else 'meta')).write_bytes(dump(meta))
    return np.concatenate(rows).reshape(-1, 3, 32, 32), labels, names

@pytest.mark.parametrize('name,inner', [('cifar10', 'cifar-10-batches-py'), ('cifar100', 'cifar-100-python')])
@pytest.mark.parametrize('unpacked_inside', [True, False])
@pytest.mark.parametrize('dump', [python2, python3])
def test_cifar_as_it_is_handed_around(data, name, inner, unpacked_inside, dump):
    x, y, names = write_cifar(data/name/inner if unpacked_inside else data/name, name, dump)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        d = load_tensors(name)
    check_form(d, 3, 32)
    check_content(d, x[:-3], y[:-3], x[-3:], y[-3:])
    assert d.classes == names

class Call:
    "Unpickles into a call."
    def __init__(self, f, *args): self.f, self.args = f, args
    def __reduce__(self): return self.f, self.args

@pytest.mark.parametrize('evil', [
    lambda p: Call(os.system, f'touch {p}'), lambda p: Call(eval, f'open({str(p)!r}, "w")'),
    lambda p: Call(open, str(p), 'w'), lambda p: {'data': np.array([Call(Path.touch, p)], dtype=object)},
    lambda p: {'labels': [Call(exec, f'open({str(p)!r}, "w")')]}])
@pytest.mark.parametrize('protocol', [0, 2, 4])
def test_a_hostile_pickle_is_refused_and_never_run(data, tmp_path, evil, protocol):
    write_cifar(data/'cifar10', 'cifar10')
    (data/'cifar10'/'data_batch_3').write_bytes(pickle.dumps(evil(tmp_path/'owned'), protocol=protocol))
    with pytest.raises(ValueError, match='data_batch_3.* which no CIFAR file needs'):
        load_tensors('cifar10', standin='digits')
    assert not (tmp_path/'owned').exists()

@pytest.mark.parametrize('module,name', [
    ('builtins', 'getattr'), ('posix', 'system'), ('numpy', 'load'), ('numpy', 'memmap'), ('_codecs', 'lookup'),
    ('numpy.core.multiarray', 'scalar'), ('multiarray', '_reconstruct'), ('os.numpy', 'ndarray'),
    ('copyreg', '_reconstructor')])
def test_no_other_name_is_looked_up(tmp_path, module, name):
    (tmp_path/'x').write_bytes(f'c{module}\n{name}\n.'.encode())
    with pytest.raises(ValueError, match=f'asks for {module}.{name}'): sources._unpickle(tmp_path/'x')

def cifar_file(folder, change): (folder/'data_batch_2').write_bytes(change((folder/'data_batch_2').read_bytes()))

@pytest.mark.parametrize('change', [
    lambda b: b'', lambda b: b[:100], lambda b: b[:-100], lambda b: b[:5000], lambda b: b'<html>404</html>',
    lambda b: bytes(50), lambda b: python3([1, 2]), lambda b: python3({}),
    lambda b: python3({'data': 'text', 'labels': [1]}),
    lambda b: python3({'data': pixels(3, 3071), 'labels': [1, 2, 3]}),
    lambda b: python3({'data': pixels(3, 3072), 'labels': None}),
    lambda b: python3({'data': pixels(3, 3072), 'fine_labels': [1, 2, 3]}),
    lambda b: python3({'data': pixels(3, 3072), 'labels': [1, 2]}),
    lambda b: python3({'data': pixels(3, 3072), 'labels': [1, 2, 10]}),
    pytest.param(lambda b: b.replace(b'latin1', b'latiG1'), id='LookupError'),
    pytest.param(lambda b: b'cnumpy\nndarray\n((L100000000000000L\nttR.', id='MemoryError')])
def test_damaged_cifar_is_refused_and_named(data, change):
    write_cifar(data/'cifar10', 'cifar10')
    cifar_file(data/'cifar10', change)
    with pytest.raises(ValueError, match='cifar10'): load_tensors('cifar10', standin='digits')

def test_a_missing_cifar_file_is_named(data):
    write_cifar(data/'cifar100', 'cifar100')
    (data/'cifar100'/'test').unlink()
    with pytest.raises(FileNotFoundError, match='cifar100.*test'): load_tensors('cifar100')

# the hub

def hub_split(n, image, label, names, channels, extra=None):
    ims = [pixels(6, 5) if channels==1 else pixels(6, 5, 3) for _ in range(n)]
    y = rng.randint(0, len(names), n).tolist()
    cols = {image: [Image.fromarray(o) for o in ims], label: y} | ({extra: [0]*n} if extra else {})
    feats = {image: hf.Image(), label: hf.ClassLabel(names=names)} | ({extra: hf.Value('int64')} if extra else {})
    return hf.Dataset.from_dict(cols, features=hf.Features(feats)), np.stack(ims), y

HUB = {
    'mnist': ('image', 'label', 1, None), 'fashion_mnist': ('image', 'label', 1, None),
    'cifar10': ('img', 'label', 3, None), 'cifar100': ('img', 'fine_label', 3, 'coarse_label')}

@pytest.mark.parametrize('name', HUB)
def test_hub_columns_and_class_names(name, monkeypatch):
    image, label, channels, extra = HUB[name]
    names = ['T - shirt / top', 'Möwe', 'c']
    (train, x, y), (test, xt, yt) = [hub_split(n, image, label, names, channels, extra) for n in (7, 3)]
    asked = []
    monkeypatch.setattr(sources, '_fetch', lambda repo: asked.append(repo) or hf.DatasetDict(train=train, test=test))
    for _ in range(2):                                            # fetched, then from the cache
        d = load_tensors(name)
        assert d.train[0].dtype == torch.uint8 and d.train[0].is_contiguous()
        assert d.train[0].shape == (6, channels, 6, 5) and len(d.test[0]) == 3
        check_content(d, x.reshape(7, 6, 5, channels).transpose(0, 3, 1, 2).squeeze(1) if channels==1 else x.transpose(0, 3, 1, 2), y,
                      xt.squeeze() if channels==1 else xt.transpose(0, 3, 1, 2), yt)
        assert d.train[1].dtype == torch.int64 and d.classes == names and d.source == 'hub'
    assert len(asked) == 1 and asked[0].endswith('/'+name)

def test_order_of_sources(data, monkeypatch):
    write_mnist(data/'mnist')
    hub = hf.DatasetDict(**{k: hub_split(3, 'image', 'label', ['a', 'b'], 1)[0] for k in ('train', 'test')})
    monkeypatch.setattr(sources, '_fetch', lambda repo: hub)
    for asked, got in dict(hub='hub', auto='MINIAI_DATA', local='MINIAI_DATA').items():
        assert load_tensors('mnist', asked).source == load_tensors('mnist', asked).source == got
    assert load_tensors('cifar10').source == 'hub'
    with pytest.raises(FileNotFoundError):
        load_tensors('cifar10', 'local')                          # although the hub's copy is in the cache

def test_hub_out_of_reach_is_said_at_once(data):
    start = time.perf_counter()
    with pytest.raises(FileNotFoundError) as e: load_tensors('cifar100')
    assert time.perf_counter()-start < 5
    assert str(e.value).startswith(f'cifar100 is not in {data} and the hub did not give it (')
    assert 'Set MINIAI_DATA to a folder holding cifar100/cifar-100-python' in str(e.value)
    assert "load('digits')" in str(e.value)
    assert isinstance(e.value.__cause__, Exception)

def test_the_hub_is_knocked_at_with_little_patience(monkeypatch):
    import huggingface_hub
    monkeypatch.setattr(hf.config, 'HF_HUB_OFFLINE', False)
    waits = []
    def nobody(self, repo, timeout=None):
        waits.append(timeout)
        raise ConnectionError('no route')
    monkeypatch.setattr(huggingface_hub.HfApi, 'dataset_info', nobody)
    monkeypatch.setattr(hf, 'load_dataset', lambda *args: pytest.fail('it would try for 23 seconds'))
    with pytest.raises(FileNotFoundError, match='ConnectionError'): load_tensors('mnist', 'hub')
    assert waits and waits[0] <= 10

def test_an_interrupt_is_no_missing_dataset(monkeypatch):
    def stop(repo): raise KeyboardInterrupt
    monkeypatch.setattr(sources, '_fetch', stop)
    with pytest.raises(KeyboardInterrupt): load_tensors('mnist', standin='digits')

def test_local_message_is_a_sentence():
    with pytest.raises(FileNotFoundError) as e: load_tensors('mnist', 'local')
    assert ',.' not in str(e.value)

# the stand-in

@pytest.mark.parametrize('source', ['auto', 'local', 'hub'])
def test_a_stand_in_says_so_in_one_line_each_time(capsys, source):
    for _ in range(2):
        assert load_tensors('fashion_mnist', source, standin='digits').source == 'scikit-learn'
        out = capsys.readouterr()
        assert out.out.startswith('fashion_mnist is not at hand, so digits stand in for it.')
        assert out.out.count('\n') == 1 and not out.err

def test_no_stand_in_where_the_data_are(data, capsys):
    write_mnist(data/'mnist')
    assert load_tensors('mnist', standin='digits').source == 'MINIAI_DATA' and capsys.readouterr().out == ''

def test_without_a_stand_in_nothing_is_replaced(capsys):
    with pytest.raises(FileNotFoundError): load_tensors('mnist')
    assert capsys.readouterr().out == ''

def test_a_misspelt_stand_in_is_found_at_once(capsys):
    with pytest.raises(ValueError, match="standin must be one of .*Did you mean 'digits'"):
        load_tensors('digits', standin='digts')

@pytest.mark.parametrize('kwargs,match', [
    (dict(name='fashion-mnist'), "name must be .*Did you mean 'fashion_mnist'"),
    (dict(name='MNIST'), 'name must be'), (dict(name='cifar'), "Did you mean 'cifar10'"),
    (dict(name=''), 'name must be'), (dict(name=None), 'name must be'),
    (dict(name='mnist', source='lokal'), "source must be .*Did you mean 'local'"),
    (dict(name='digits', source=None), 'source must be')])
def test_unknown_names(kwargs, match):
    with pytest.raises(ValueError, match=f'^load: .*{match}'): load_tensors(**kwargs)

# the cache

def cached(): return sorted(Path(os.environ['MINIAI_CACHE']).rglob('*'))

@pytest.fixture
def decodes(monkeypatch):
    "The names of the datasets that were decoded."
    seen, real = [], sources._decode
    monkeypatch.setattr(sources, '_decode', lambda name, *args: seen.append(name) or real(name, *args))
    return seen

def test_the_second_load_decodes_nothing_and_is_equal(data, decodes):
    write_mnist(data/'mnist')
    for name in ('mnist', 'digits'): assert same(load_tensors(name), load_tensors(name))
    assert decodes == ['mnist', 'digits'] and len(cached()) == 2 and all(o.suffix == '.safetensors' for o in cached())

def test_what_was_loaded_may_be_changed(decodes):
    first = load_tensors('digits')
    for d in (load_tensors('digits'), first):
        for t in sets(d): t.zero_()
    assert same(load_tensors('digits'), sources._digits()) and decodes == ['digits']

FLIP_AT = {
    'in the pixels': -1000, 'in the labels': 2000, 'in the length': 0, 'in a shape': lambda b: b.index(b'1279'),
    'in the checksum': lambda b: b.index(b'crc32')+9}

def flip(b, at):
    b, at = bytearray(b), at(bytes(b)) if callable(at) else at
    b[at] ^= 1
    return bytes(b)

DAMAGE = {
    'empty': lambda b: b'', 'text': lambda b: b'not found', 'cut': lambda b: b[:len(b)//2],
    'cut in the head': lambda b: b[:20], 'one byte less': lambda b: b[:-1], 'one byte more': lambda b: b+b'x',
    'zeros': lambda b: bytes(len(b)), 'another file': lambda b: safetensors.torch.save({'a': torch.ones(2)}),
    **{f'a bit flipped {k}': lambda b, at=v: flip(b, at) for k, v in FLIP_AT.items()}}

HIDDEN = {'class name': b'\\"3\\"', 'source': b'scikit'}
DAMAGES = [*DAMAGE.items(), *(pytest.param(k, lambda b, s=v: flip(b, b.index(s)+2), id=k)
                              for k, v in HIDDEN.items())]

@pytest.mark.parametrize('kind,damage', DAMAGES)
def test_a_damaged_cache_is_noticed_and_made_again(decodes, kind, damage):
    good = load_tensors('digits')
    file, = cached()
    raw = file.read_bytes()
    file.write_bytes(damage(raw))
    with pytest.warns(UserWarning, match=f'{file.name} is damaged and will be made again'):
        again = load_tensors('digits')
    assert same(again, good) and same(again, load_tensors('digits')) and decodes == ['digits']*2
    assert cached() == [file] and file.stat().st_size == len(raw)

def test_a_damaged_cache_without_a_source_is_no_excuse(monkeypatch):
    hub = hf.DatasetDict(**{k: hub_split(3, 'image', 'label', ['a', 'b'], 1)[0] for k in ('train', 'test')})
    with monkeypatch.context() as m:
        m.setattr(sources, '_fetch', lambda repo: hub)
        load_tensors('mnist')
    assert load_tensors('mnist').source == 'hub'                  # offline now, and still at hand
    cached()[0].write_bytes(b'')
    with pytest.warns(UserWarning, match='damaged'), pytest.raises(FileNotFoundError): load_tensors('mnist')

@pytest.mark.parametrize('level,later', [(0, 1), (9, 0)])       # same size and a new date; same date and a new size
def test_changed_files_are_decoded_anew(data, decodes, level, later):
    write_mnist(data/'mnist')
    old, file = load_tensors('mnist'), data/'mnist'/FILES[1]
    before = file.stat()
    file.write_bytes(gzip.compress(idx_bytes(np.arange(12, dtype=np.uint8)%10), level))
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns+later))
    assert (file.stat().st_size==before.st_size) == (level==0)
    new = load_tensors('mnist')
    assert sorted([*new.train[1].tolist(), *new.valid[1].tolist()]) == [0, 0, 1, 1, *range(2, 10)] and not same(old, new) and decodes == ['mnist']*2

def test_two_folders_do_not_share_a_cache(tmp_path, monkeypatch):
    loaded = []
    for i in (1, 2):
        write_mnist(tmp_path/str(i)/'mnist', seed=i)
        for f in FILES: os.utime(tmp_path/str(i)/'mnist'/f, ns=(0, 0))
        monkeypatch.setenv('MINIAI_DATA', str(tmp_path/str(i)))
        loaded.append(load_tensors('mnist'))
    assert not same(*loaded)

@pytest.fixture
def blocked(tmp_path):
    "A path that cannot be made, not even by root: it lies below a file."
    (tmp_path/'file').write_text('x')
    return tmp_path/'file'/'cache'

def test_default_place_that_cannot_be_written_warns(blocked, monkeypatch, decodes):
    monkeypatch.delenv('MINIAI_CACHE')
    monkeypatch.setenv('XDG_CACHE_HOME', str(blocked))
    for _ in range(2):
        with pytest.warns(UserWarning, match=f'cannot keep the decoded images in {blocked}.*Set MINIAI_CACHE'):
            assert len(load_tensors('digits').train[0]) == 1279
    assert decodes == ['digits']*2

def test_chosen_place_that_cannot_be_written_raises(blocked, monkeypatch):
    monkeypatch.setenv('MINIAI_CACHE', str(blocked))
    with pytest.raises(OSError, match=f'cannot keep the decoded images in {blocked}.*Set MINIAI_CACHE to a folder'):
        load_tensors('digits')

def test_default_place_follows_xdg(tmp_path, monkeypatch):
    monkeypatch.delenv('MINIAI_CACHE')
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path/'xdg'))
    load_tensors('digits')
    assert [o.suffix for o in (tmp_path/'xdg'/'miniai').iterdir()] == ['.safetensors']

@pytest.fixture
def full_disk():
    "Files may not grow beyond 100 kB."
    resource = pytest.importorskip('resource')
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

def test_a_full_disk_warns_in_the_default_place(full_disk, tmp_path, monkeypatch):
    monkeypatch.delenv('MINIAI_CACHE')
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path/'xdg'))
    with pytest.warns(UserWarning, match='cannot keep the decoded images'):
        assert len(load_tensors('digits').train[0]) == 1279
    assert not list((tmp_path/'xdg'/'miniai').iterdir())

def test_a_full_disk_raises_in_a_chosen_place(full_disk):
    with pytest.raises(OSError, match='cannot keep the decoded images'): load_tensors('digits')

@pytest.mark.parametrize('exc', [KeyboardInterrupt, OSError])
def test_nothing_half_written_is_left(monkeypatch, exc):
    def half(tensors, path, meta):
        Path(path).write_bytes(b'half')
        raise exc('stop')
    with monkeypatch.context() as m:
        m.setattr(safetensors.torch, 'save_file', half)
        with pytest.raises(exc): load_tensors('digits')
    assert cached() == []
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        load_tensors('digits')

def test_the_full_size_loads_in_a_blink(data):
    write_mnist(data/'mnist')
    write_idx(data/'mnist'/FILES[0], np.arange(60_000*28*28, dtype=np.uint8).reshape(60_000, 28, 28))
    write_idx(data/'mnist'/FILES[1], np.arange(60_000, dtype=np.uint8)%10)
    first = load_tensors('mnist')
    start = time.perf_counter()
    second = load_tensors('mnist')
    assert time.perf_counter()-start < .5 and same(first, second) and [len(o) for o, _ in second[:3]] == [55_000, 5_000, 4]
