"Rows as Hugging Face sees them, collation, loaders for both roads, and batches that never touch the data."
import inspect, pickle, warnings

import datasets as hf
import numpy as np
import pytest
import torch
import torchvision.transforms.functional as TF
from fastcore.docments import docments
from torch.utils.data import DataLoader, IterableDataset

import miniai.datasets as D
from miniai.core import collate, map_tensors, set_seed
from miniai.datasets import DataLoaders, ImageData, TensorDL, collate_dict, inplace, load


def images(n, c=1, h=6, w=5, seed=0):
    "Every byte there is, in no order, on pictures that are not square."
    mixed = np.random.RandomState(seed).permutation(np.arange(n*c*h*w)%256)
    return torch.from_numpy(mixed.astype(np.uint8)).reshape(n, c, h, w)

def image_data(c):
    y = torch.arange(20)%3
    return ImageData((images(20, c), y), (images(7, c, seed=1), y[:7]), (images(5, c, seed=2), y[:5]), ['a', 'b / c', 'Möwe'], 'test')

@inplace
def to_tensors(rows): rows['image'] = [TF.to_tensor(o) for o in rows['image']]

@pytest.fixture
def loaded(monkeypatch):
    "`load` of a small dataset with so many channels."
    def _load(c=1):
        monkeypatch.setattr(D, 'load_tensors', lambda *args: image_data(c))
        return load('mnist')
    return _load

@pytest.fixture
def tds(loaded): return loaded().with_transform(to_tensors)

# load

@pytest.mark.parametrize('c,mode', [(1, 'L'), (3, 'RGB')])
def test_rows_hold_the_very_pixels(loaded, c, mode):
    dd, d = loaded(c), image_data(c)
    assert isinstance(dd, hf.DatasetDict) and list(dd) == ['train', 'valid', 'test']
    for split, (x, y) in dict(train=d.train, valid=d.valid, test=d.test).items():
        assert dd[split].column_names == ['image', 'label'] and len(dd[split]) == len(x)
        assert dd[split].features['label'].names == d.classes and isinstance(dd[split].features['image'], hf.Image)
        for row, im, label in zip(dd[split], x, y):
            assert row['image'].mode == mode and row['image'].size == (5, 6) and row['label'] == label
            assert np.array_equal(np.asarray(row['image']).reshape(6, 5, c), im.permute(1, 2, 0))

def test_rows_survive_what_hugging_face_does_with_them(loaded, tmp_path):
    dd, d = loaded(3), image_data(3)
    dd.save_to_disk(tmp_path/'kept')
    kept = hf.load_from_disk(tmp_path/'kept')['train']
    for ds in (kept.select([4, 2]), kept.filter(lambda o: o['label']==1).select([1, 0]).map(lambda o: {'n': 1})):
        assert np.array_equal(np.asarray(ds[0]['image']), d.train[0][4].permute(1, 2, 0)) and ds[0]['label'] == 1
    parts = dd['train'].train_test_split(0.25, seed=0)
    assert sorted(map(len, parts.values())) == [5, 15] and parts['test'].features == dd['train'].features

def test_load_hands_its_arguments_on(capsys):
    assert load('digits')['train'].num_rows == 1279
    dd = load('mnist', source='local', standin='digits')
    assert [dd[k].num_rows for k in ('valid', 'test')] == [258, 260] and capsys.readouterr().out.count('\n') == 1
    with pytest.raises(FileNotFoundError): load('mnist', 'local')
    with pytest.raises(ValueError, match="Did you mean 'mnist'"): load('minst')

def test_names_that_courses_look_for_here():
    assert {'show_image', 'subplots', 'get_grid', 'show_images', 'load_tensors', 'ImageData', 'inplace',
        'collate_dict', 'DataLoaders'} <= set(D.__all__)
    assert all(hasattr(D, o) for o in D.__all__)

# transforms and collation

def test_inplace_returns_its_argument_and_keeps_the_name(tds):
    rows = {'image': [TF.to_pil_image(o) for o in image_data(1).train[0][:2]]}
    assert to_tensors(rows) is rows and to_tensors.__name__ == 'to_tensors'
    assert torch.equal(rows['image'][0], image_data(1).train[0][0]/255)
    assert torch.equal(tds['train'][0]['image'], rows['image'][0])
    with pytest.raises(KeyError): to_tensors({})

def rows_of(tds, n=4): return [tds['train'][i] for i in range(n)]

def test_collate_dict_gives_tuples_or_dicts(tds):
    x, y = image_data(1).train
    xb, yb = collate_dict(tds['train'])(rows_of(tds))
    b = collate_dict(tds['train'], as_tuple=False)(rows_of(tds))
    assert torch.equal(xb, x[:4]/255) and torch.equal(yb, y[:4])
    assert (xb.dtype, yb.dtype) == (torch.float32, torch.int64)
    assert list(b) == ['image', 'label'] and torch.equal(b['image'], xb) and torch.equal(b['label'], yb)

def test_columns_come_in_the_order_of_the_dataset(tds):
    swapped = tds['train'].select_columns(['label', 'image'])
    yb, xb = collate_dict(swapped)([{'image': torch.zeros(2), 'label': 1}]*3)
    assert xb.shape == (3, 2) and yb.tolist() == [1]*3
    batch = collate_dict(tds['train'].select_columns(['label']))([{'label': i} for i in range(3)])
    assert type(batch) is tuple and len(batch) == 1 and batch[0].tolist() == [0, 1, 2]

def test_collate_dict_makes_no_float64(tds):
    xb, yb = collate_dict(tds['train'])([{'image': np.ones((2, 2)), 'label': .5}]*2)
    assert xb.dtype == yb.dtype == torch.float32

@pytest.mark.parametrize('as_tuple', [True, False])
def test_a_forgotten_transform_is_explained(loaded, as_tuple):
    dls = DataLoaders.from_dd(loaded(), 4, as_tuple)
    with pytest.raises(TypeError, match="^collate_dict: cannot stack {'image': .*File, 'label': int .*with_transform"):
        next(iter(dls.train))

@pytest.mark.parametrize('as_tuple', [True, False])
def test_collate_dict_reaches_a_spawned_worker(tds, as_tuple):
    f = pickle.loads(pickle.dumps(collate_dict(tds['train'], as_tuple)))
    assert len(f(rows_of(tds))) == 2

def test_a_column_that_is_gone_is_explained(tds):
    with pytest.raises(KeyError, match='collate_dict: .*picture'):
        collate_dict(tds['train'])([{'picture': torch.zeros(2), 'label': 0}])

# DataLoaders

def labels(dl): return [int(o) for _, yb in dl for o in yb]

def test_from_dd(tds):
    dls = DataLoaders.from_dd(tds, 6)
    assert [len(yb) for _, yb in dls.train] == [6, 6, 6, 2] and [len(yb) for _, yb in dls.valid] == [7]
    assert len(dls.valid) == 1
    assert dls.valid.batch_size == 12 and labels(dls.valid) == image_data(1).valid[1].tolist()
    set_seed(0); a = labels(dls.train)
    b = labels(dls.train)
    set_seed(0); assert labels(dls.train) == a != b and sorted(a) == sorted(image_data(1).train[1].tolist())
    xb, _ = next(iter(dls.valid))
    assert torch.equal(xb, image_data(1).valid[0]/255) and xb.dtype == torch.float32

def test_shuffle_and_drop_last_are_for_training_only(tds):
    dls = DataLoaders.from_dd(tds, 3, shuffle=False, drop_last=True)
    assert labels(dls.train) == image_data(1).train[1].tolist()[:18] and len(labels(dls.valid)) == 7
    for o in (True, False):
        dls = DataLoaders.from_dd(tds, 3, shuffle=o)
        assert type(dls.train.sampler).__name__ == ('RandomSampler' if o else 'SequentialSampler')
        assert type(dls.valid.sampler).__name__ == 'SequentialSampler'

def test_keywords_reach_both_loaders(tds):
    dls = DataLoaders.from_dd(tds, 6, num_workers=1, collate_fn=len)
    assert dls.train.num_workers == dls.valid.num_workers == 1 and list(dls.train) == [6, 6, 6, 2]
    assert list(dls.valid) == [7]

def test_workers_give_the_same_batches(tds):
    with_worker, without = [list(DataLoaders.from_dd(tds, 6, shuffle=False, num_workers=n).train) for n in (1, 0)]
    assert all(torch.equal(a, b) for s, t in zip(with_worker, without, strict=True) for a, b in zip(s, t))

def test_as_dict(tds):
    b = next(iter(DataLoaders.from_dd(tds, 4, as_tuple=False).train))
    assert b['image'].shape == (4, 1, 6, 5) and b['label'].dtype == torch.int64

@pytest.mark.parametrize('names,chosen', [
    (['valid'], 'valid'), (['validation'], 'validation'), (['test'], 'test'), (['test', 'valid'], 'valid'),
    (['test', 'validation'], 'validation'), (['validation', 'valid'], 'valid'), (['unsupervised'], None), ([], None)])
@pytest.mark.parametrize('train_first', [True, False])
def test_the_validation_split_is_found_by_name_not_by_place(tds, names, chosen, train_first):
    parts = [*[(o, tds['train'].select(range(i+1))) for i, o in enumerate(names)]]
    parts.insert(0 if train_first else len(parts), ('train', tds['train']))
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter('always')
        dls = DataLoaders.from_dd(hf.DatasetDict(parts), 4)
    told = [o for o in seen if 'the test split serves for validation' in str(o.message)]
    assert len(told) == (chosen=='test') and all(o.filename==__file__ for o in told)        # it points at the caller
    assert len(dls.train.dataset) == 20
    assert (dls.valid is None) if chosen is None else len(dls.valid.dataset) == names.index(chosen)+1

@pytest.mark.parametrize('bs,exc', [
    (0, ValueError), (-1, ValueError), (2.5, TypeError), (None, TypeError), (True, TypeError), ('8', TypeError)])
def test_bad_batch_sizes(tds, bs, exc):
    with pytest.raises(exc, match='^DataLoaders.from_dd: batch_size must be'): DataLoaders.from_dd(tds, bs)
    with pytest.raises(exc, match='^TensorDL: bs must be'): DataLoaders.from_tensors(images(3), bs=bs)

@pytest.mark.parametrize('make', [
    lambda dd, bs: DataLoaders.from_dd(dd, bs).train, lambda dd, bs: DataLoaders.from_dd(dd, bs).valid,
    lambda dd, bs: TensorDL(images(20), bs=bs), lambda dd, bs: DataLoaders.from_tensors(images(20), bs=bs).train])
@pytest.mark.parametrize('bs', [4, pytest.param(np.int64(4))])
def test_batch_size_may_be_any_integer(tds, make, bs): assert len(next(iter(make(tds, bs)))[0]) in (4, 7)

def test_no_training_split(tds):
    with pytest.raises(KeyError, match=r"needs a 'train' split, got \['test'\]"):
        DataLoaders.from_dd({'test': tds['test']}, 4)

@pytest.mark.parametrize('n', [0, 3])
def test_a_wrong_number_of_loaders(n):
    with pytest.raises(TypeError, match=f'takes one or two loaders, train and valid, got {n}'):
        DataLoaders(*range(n))

class Stream(IterableDataset):
    def __iter__(self): return iter(range(5))

@pytest.mark.parametrize('dls,text', [
    (lambda: DataLoaders([1, 2], [3]), 'DataLoaders(train: 2 batches, valid: 1 batches)'),
    (lambda: DataLoaders([1]), 'DataLoaders(train: 1 batches, valid: none)'),
    (lambda: DataLoaders([1], None), 'DataLoaders(train: 1 batches, valid: none)'),
    (lambda: DataLoaders(iter([1])), 'DataLoaders(train: of unknown length, valid: none)'),
    pytest.param(lambda: DataLoaders(DataLoader(Stream())), 'DataLoaders(train: of unknown length, valid: none)')])
def test_repr(dls, text): assert repr(dls()) == text

# TensorDL

X, Y = images(10), torch.arange(10)

def order(dl): return [b[-1].tolist() for b in dl]

def test_bytes_become_just_what_to_tensor_makes_of_them():
    x = images(20, 3)
    xb = torch.cat([xb for xb, in TensorDL(x, bs=7, device='cpu')])
    assert xb.dtype == torch.float32 and x.unique().numel() == 256
    assert torch.equal(xb, torch.stack([TF.to_tensor(o.permute(1, 2, 0).numpy()) for o in x]))

@pytest.mark.parametrize('bs,drop_last,sizes', [
    (4, False, [4, 4, 2]), (4, True, [4, 4]), (5, False, [5, 5]), (5, True, [5, 5]), (10, True, [10]),
    (99, False, [10]), (1, False, [1]*10), (torch.tensor(4), False, [4, 4, 2])])
@pytest.mark.parametrize('shuffle', [False, True])
def test_batches_and_length(bs, drop_last, sizes, shuffle):
    dl = TensorDL(X, Y, bs, shuffle, drop_last, device='cpu')
    for _ in range(2):
        batches = list(dl)
        assert [len(xb) for xb, _ in batches] == sizes and len(dl) == len(sizes)
        seen = torch.cat([yb for _, yb in batches])
        assert seen.unique().numel() == sum(sizes) and torch.equal(torch.cat([xb for xb, _ in batches]), X[seen]/255)
        assert shuffle or seen.tolist() == list(range(sum(sizes)))

def test_a_seed_repeats_the_sequence_of_orders_and_nothing_else_moves():
    a, b, c = [TensorDL(X, Y, 4, True, device='cpu', seed=s) for s in (1, 1, 2)]
    first = [order(a) for _ in range(3)]
    torch.manual_seed(0); state = torch.get_rng_state()
    assert [order(b) for _ in range(3)] == first and len({str(o) for o in first}) == 3 and order(c) != first[0]
    assert torch.equal(torch.get_rng_state(), state)

def test_without_a_seed_torchs_own_is_followed():
    dl, runs = TensorDL(X, Y, 4, True, device='cpu'), []
    for seed in (1, 1, 2):
        set_seed(seed)
        runs.append([order(dl), order(dl)])
    assert runs[0] == runs[1] != runs[2] and runs[0][0] != runs[0][1]

def test_no_random_number_is_drawn_without_shuffling():
    state = torch.get_rng_state()
    list(TensorDL(X, Y, device='cpu'))
    assert torch.equal(torch.get_rng_state(), state)

def test_an_epoch_left_midway_does_not_disturb_the_next():
    dl = TensorDL(X, Y, 4, device='cpu')
    whole = order(dl)
    next(iter(dl))
    for _ in dl: break
    assert order(dl) == whole
    dl = TensorDL(X, Y, 4, True, device='cpu', seed=0)
    next(iter(dl))
    assert sorted(sum(order(dl), [])) == list(range(10))

@pytest.mark.parametrize('shuffle', [False, True])
def test_two_iterators_at_once(shuffle):
    dl = TensorDL(X, Y, 3, shuffle, device='cpu', seed=0)
    pairs = [(a[1].tolist(), b[1].tolist()) for a, b in zip(dl, dl)]
    for one in zip(*pairs): assert sorted(sum(one, [])) == list(range(10))
    assert all((a!=b)==shuffle for a, b in pairs[:1])

def dtypes(batches):
    res = set()
    map_tensors(lambda t: res.add(t.dtype), list(batches))
    return res

@pytest.mark.parametrize('x', [X, X.half(), X.bfloat16(), X.float(), X.double()], ids=lambda o: str(o.dtype))
@pytest.mark.parametrize('y,expected', [
    (Y, torch.int64), (Y.byte(), torch.int64), (Y.int(), torch.int64), (Y>4, torch.int64),
    (Y.double(), torch.float32), (Y.half(), torch.float32), (X.double(), torch.float32)],
                                        ids=lambda o: str(getattr(o, 'dtype', o)))
def test_dtypes(x, y, expected):
    (xb, yb), *_ = batches = list(TensorDL(x, y, 4, device='cpu'))
    assert xb.dtype == torch.float32 and yb.dtype == expected and torch.float64 not in dtypes(batches)
    assert torch.equal(xb, X[:4]/255 if x.dtype==torch.uint8 else x[:4].float()) and torch.equal(yb, y[:4].to(expected))

def test_float_images_are_not_scaled(): assert next(iter(TensorDL(X.float(), device='cpu')))[0].max() == 255

@pytest.mark.parametrize('x,y', [(X, None), (X, Y), (X.float(), Y.float()), (X.float(), None)])
@pytest.mark.parametrize('kwargs', [{}, dict(shuffle=True), dict(bs=10)])
def test_a_batch_may_be_changed_without_touching_the_data(x, y, kwargs):
    kept = x.clone(), None if y is None else y.clone()
    def spoil(batch):
        for t in batch: t.fill_(7)
        return batch
    for batch in TensorDL(x, y, device='cpu', tfm=spoil, **kwargs):
        for t in batch: t.add_(1)
    assert torch.equal(x, kept[0]) and (y is None or torch.equal(y, kept[1]))

def test_without_targets_a_batch_is_a_tuple_of_one():
    batch = next(iter(TensorDL(X, device='cpu')))
    assert type(batch) is tuple and len(batch) == 1

def test_the_transform_comes_last_and_may_return_anything():
    seen = []
    def tfm(batch):
        seen.append(batch[0].dtype)
        return {'x': batch[0]*2, 'n': len(batch)}
    batch = next(iter(TensorDL(X, Y, 4, device='cpu', tfm=tfm)))
    assert torch.equal(batch['x'], X[:4]/255*2) and batch['n'] == 2 and seen == [torch.float32]

def test_images_of_any_shape():
    for shape in ((10,), (10, 3), (10, 2, 3, 4, 5)):
        assert next(iter(TensorDL(torch.zeros(shape), device='cpu')))[0].shape == shape
    assert next(iter(TensorDL(X.permute(0, 1, 3, 2), bs=2, device='cpu')))[0].shape == (2, 1, 5, 6)

@pytest.mark.parametrize('shuffle', [True, False])
def test_the_meta_device_gives_shapes(shuffle):
    got = [(xb.shape, yb.shape, xb.dtype, xb.device.type) for xb, yb in TensorDL(X, Y, 4, shuffle, device='meta')]
    assert got == [((n, 1, 6, 5), (n,), torch.float32, 'meta') for n in (4, 4, 2)]

@pytest.mark.parametrize('args,kwargs,exc,match', [
    ((X, Y[:9]), {}, ValueError, r'10 images but 9 targets: x uint8 \[10,1,6,5\], y int64 \[9\]'),
    ((X[:0],), {}, ValueError, '0 images make no batch of 256'),
    ((X,), dict(bs=11, drop_last=True), ValueError, '10 images make no batch of 11'),
    ((X.numpy(),), {}, TypeError, r'x must be a tensor, got numpy uint8'),
    (([1, 2],), {}, TypeError, 'x must be a tensor, got list'),
    ((X, Y.tolist()), {}, TypeError, 'y must be a tensor, got list'),
    ((X.long(),), {}, TypeError, r'images must be uint8 \(0 to 255\) or float, got int64'),
    ((X>3,), {}, TypeError, 'or float, got bool'), ((X.cfloat(),), {}, TypeError, 'or float, got complex64'),
    ((X, Y, 0), {}, ValueError, 'bs must be at least 1'), ((X, Y, 2.), {}, TypeError, 'bs must be a whole'),
    pytest.param((torch.tensor(1.),), {}, (TypeError, ValueError), 'x'),
    pytest.param((X, torch.tensor(1)), {}, (TypeError, ValueError), 'y'),
    pytest.param((X,), dict(seed='a'), TypeError, 'seed must be a whole'),
    pytest.param((X, Y.cfloat()), {}, TypeError, 'y|targets')])
def test_what_makes_no_batches(args, kwargs, exc, match):
    with pytest.raises(exc, match=f'^TensorDL: .*{match}'): TensorDL(*args, **kwargs)

def test_seed_may_be_any_integer(): TensorDL(X, seed=np.int64(3))

# from_tensors

def test_from_tensors():
    dls = DataLoaders.from_tensors((X, Y), [X[:7], Y[:7]], bs=3, device='cpu', seed=1)
    first = order(dls.train)
    assert [len(o) for o in first] == [3, 3, 3, 1] and order(dls.valid) == [[*range(6)], [6]]
    assert sorted(sum(order(dls.train), [])) == list(range(10))
    again = DataLoaders.from_tensors((X, Y), bs=3, device='cpu', seed=1)
    in_order = DataLoaders.from_tensors((X, Y), bs=3, device='cpu', shuffle=False)
    assert again.valid is None and order(again.train) == first and sum(order(in_order.train), []) == list(range(10))

def test_from_tensors_keeps_training_matters_from_validation():
    dls = DataLoaders.from_tensors((X, Y), (X, Y), bs=4, device='cpu', shuffle=False, drop_last=True,
        tfm=lambda b: 'train', valid_tfm=lambda b: 'valid')
    assert list(dls.train) == ['train']*2 and list(dls.valid) == ['valid']*2
    assert DataLoaders.from_tensors((X, Y), (X[:1], Y[:1]), bs=4, device='cpu', drop_last=True).valid.drop_last is False
    valid = DataLoaders.from_tensors((X, Y), (X, Y), bs=4, device='cpu', tfm=lambda b: 'train').valid
    assert order(valid) == [[*range(8)], [8, 9]]

def test_from_tensors_takes_images_alone_and_what_load_tensors_gives():
    assert len(next(iter(DataLoaders.from_tensors(X, X[:2], device='cpu').train))) == 1
    d = image_data(3)
    dls = DataLoaders.from_tensors(d.train, d.valid, bs=4, device='cpu', drop_last=True)
    assert len(dls.train) == 5 and len(dls.valid) == 1
    with pytest.raises(ValueError, match='10 images but 3 targets'): DataLoaders.from_tensors((X, Y), (X, Y[:3]))

def test_a_subclass_makes_its_own_kind(tds):
    class Mine(DataLoaders): pass
    assert type(Mine.from_dd(tds, 4)) is type(Mine.from_tensors(X, bs=4, device='cpu')) is Mine

def test_both_ways_are_documented():
    for f in (DataLoaders.from_dd, DataLoaders.from_tensors):
        docs = docments(f, full=True)
        assert f.__doc__ and all(docs[o].docment for o in inspect.signature(f).parameters if o!='kwargs')

def test_own_collate_function_needs_no_columns():
    rows = [(torch.zeros(2), 1)]*8
    xb, yb = next(iter(DataLoaders.from_dd({'train': rows}, 4, collate_fn=collate).train))
    assert xb.shape==(4, 2) and yb.tolist()==[1]*4
