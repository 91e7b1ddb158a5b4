"Accuracy, Dataset, get_dls and fit: exact numbers, uneven batches, modes, and mistakes that must not cost an epoch."
import re

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn, optim
from torch.utils.data import DataLoader

from miniai.core import map_tensors, set_seed
from miniai.datasets import TensorDL, load_tensors
from miniai.training import Dataset, accuracy, fit, get_dls, report


@pytest.fixture(autouse=True)
def one_thread():
    "Many tiny products: on a busy machine, threads that wait for each other take a hundred times as long."
    n = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(n)

# accuracy

EYE = torch.eye(4)

@pytest.mark.parametrize('out,yb,expected', [
    (EYE, torch.arange(4), 1), (EYE, torch.tensor([0, 1, 2, 0]), .75), (EYE, torch.tensor([1, 2, 3, 0]), 0),
    (EYE, torch.zeros(4).long(), .25), (EYE, torch.arange(4).byte(), 1), (EYE, torch.arange(4).int(), 1),
    (EYE.half(), torch.arange(4), 1), (EYE.bfloat16(), torch.arange(4), 1), (EYE.double(), torch.arange(4), 1),
    (EYE[None].expand(2, 4, 4), torch.arange(4).expand(2, 4), 1),
    (torch.stack([torch.zeros(2, 3, 3), torch.ones(2, 3, 3)], 1), torch.ones(2, 3, 3).long(), 1),
    (torch.stack([torch.zeros(2, 3, 3), torch.ones(2, 3, 3)], 1), (torch.arange(18)%3==0).long().view(2, 3, 3), 1/3)])
def test_accuracy(out, yb, expected):
    acc = accuracy(out, yb)
    assert acc.shape == () and acc.dtype == torch.float32 and acc.item() == pytest.approx(expected)

def test_accuracy_of_many_is_exact():
    out, yb = torch.eye(2)[(torch.arange(60_000)<54_321).long()], torch.ones(60_000).long()
    assert accuracy(out, yb).item() == pytest.approx(54_321/60_000, abs=1e-6)

def test_accuracy_stays_on_the_device():
    out, yb = torch.zeros(4, 3, device='meta'), torch.zeros(4, dtype=torch.int64, device='meta')
    assert accuracy(out, yb).device.type == 'meta'

@pytest.mark.parametrize('out,yb,exc,match', [
    (EYE, EYE, TypeError, r'integer tensor, got float32 \[4,4\]. Use yb.long\(\); an autoencoder has no accuracy'),
    (EYE, torch.arange(4.), TypeError, r'got float32 \[4\]'), (EYE, torch.arange(4)>1, TypeError, r'got bool \[4\]'),
    (EYE, [0, 1, 2, 3], TypeError, 'got list'),
    (EYE, torch.arange(4)[:,None], ValueError, r'need targets \[N\], got float32 \[4,4\] and int64 \[4,1\]'),
    (EYE, torch.arange(3), ValueError, r'float32 \[4,4\] and int64 \[3\]'),
    (torch.ones(4), torch.arange(4), ValueError, r'got float32 \[4\]'),
    (EYE, torch.tensor(1), ValueError, r'int64 \[\]'),
    (torch.tensor(1.), torch.tensor(1), ValueError, r'float32 \[\]'),
    (torch.zeros(2, 5, 3, 3), torch.zeros(2).long(), ValueError, r'\[2,5,3,3\] and int64 \[2\]'),
    (torch.zeros(2, 5, 3, 3), torch.zeros(2, 3, 4).long(), ValueError, r'\[2,3,4\]'),
    (torch.zeros(2, 5), torch.zeros(2, 5).long(), ValueError, r'int64 \[2,5\]'),
    pytest.param([[1., 0]], torch.tensor([0]), TypeError, 'outputs'),
    pytest.param(np.eye(4), torch.arange(4), TypeError, 'outputs')])
def test_accuracy_of_what_does_not_fit(out, yb, exc, match):
    with pytest.raises(exc, match=f'^accuracy: .*{match}'): accuracy(out, yb)

@pytest.mark.parametrize('loss', [1.234, torch.tensor(1.234), torch.tensor(1.234, requires_grad=True)*1])
def test_report(capsys, loss):
    assert report(loss, EYE, torch.tensor([0, 1, 2, 0])) is None
    assert capsys.readouterr().out == '1.23, 0.75\n'

# Dataset and get_dls

X, Y = torch.arange(20.).view(10, 2), torch.arange(10)

@pytest.mark.parametrize('x,y', [(X, Y), (X.numpy(), Y.numpy()), (X.tolist(), Y.tolist()), (range(10), 'abcdefghij')])
def test_dataset_is_pairs_that_can_be_indexed_sliced_and_walked(x, y):
    ds = Dataset(x, y)
    a, b = ds[2:5]
    assert len(ds) == 10 and len(a) == len(b) == 3 and len(ds[-1]) == 2
    assert [str(o) for o in ds[3]] == [str(x[3]), str(y[3])] and len(list(ds)) == 10
    with pytest.raises(IndexError): ds[10]

@pytest.mark.parametrize('n', [0, 9, 11])
def test_dataset_of_two_lengths(n):
    with pytest.raises(ValueError, match=f'^Dataset: 10 images but {n} targets'): Dataset(X, torch.zeros(n))

def test_dataset_copies_nothing():
    ds = Dataset(X, Y)
    assert ds.x is X and ds[2:5][0].data_ptr() == X[2:].data_ptr()

def seen(dl): return [yb.tolist() for _, yb in dl]

def test_get_dls():
    train, valid = get_dls(Dataset(X, Y), Dataset(X[:7], Y[:7]), 3)
    assert [len(o) for o in seen(train)] == [3, 3, 3, 1] and seen(valid) == [[0, 1, 2, 3, 4, 5], [6]]
    set_seed(1); a = seen(train)
    set_seed(1); assert seen(train) == a != seen(train) and sorted(sum(a, [])) == list(range(10))

def test_get_dls_hands_keywords_to_both():
    for dl in get_dls(Dataset(X, Y), Dataset(X, Y), 3, num_workers=1,
        collate_fn=len): assert dl.num_workers == 1 and sum(dl) == 10

@pytest.mark.parametrize('bs,exc', [
    (0, ValueError), (-2, ValueError), (2.5, TypeError), (None, TypeError), (True, TypeError)])
def test_get_dls_bad_batch_size(bs, exc):
    with pytest.raises(exc, match='^get_dls: bs must be'): get_dls(Dataset(X, Y), Dataset(X, Y), bs)

def test_get_dls_batch_size_may_be_any_integer(): assert len(get_dls(Dataset(X, Y), Dataset(X, Y), np.int64(3))[0]) == 4

@pytest.mark.parametrize('x,y', [(np.ones((4, 2)), np.arange(4)), (X[:4], [.5]*4)])
def test_get_dls_makes_no_float64(x, y):
    dtypes = set()
    map_tensors(lambda t: dtypes.add(t.dtype), [list(dl) for dl in get_dls(Dataset(x, y), Dataset(x, y), 2)])
    assert dtypes and torch.float64 not in dtypes

# fit

def mlp(ni=784, nf=10, p=0.):
    return nn.Sequential(nn.Flatten(), nn.Linear(ni, 50), nn.ReLU(), nn.Dropout(p), nn.Linear(50, nf))

def sgd(model, lr=.2): return optim.SGD(model.parameters(), lr=lr)

def weights(model): return torch.cat([p.detach().flatten().clone() for p in model.parameters()])

@pytest.fixture
def digits(): return load_tensors('digits')

def test_fit_learns_and_returns_what_it_prints(digits, capsys):
    set_seed(42)
    model = mlp()
    train = TensorDL(*digits.train, bs=64, shuffle=True, device='cpu')
    valid = TensorDL(*digits.valid, bs=128, device='cpu')
    loss, acc = fit(8, model, F.cross_entropy, sgd(model), train, valid)
    lines = capsys.readouterr().out.splitlines()
    assert all(re.fullmatch(rf'{i} \d+\.\d{{3}} [01]\.\d{{3}}', o) for i, o in enumerate(lines)) and len(lines) == 8
    assert lines[-1] == f'7 {loss:.3f} {acc:.3f}' and type(loss) is type(acc) is float
    losses = [float(o.split()[1]) for o in lines]
    assert acc > .85 and losses[-1] < losses[0]/2

@pytest.mark.parametrize('bs', [1, 7, 100, 300])
def test_the_numbers_are_exact_over_uneven_batches(digits, bs):
    x, y = digits.valid[0]/255, digits.valid[1]
    model = mlp()
    before = weights(model)
    loss, acc = fit(1, model, F.cross_entropy, sgd(model, 0.), [(x[:4], y[:4])], DataLoader(Dataset(x, y), bs))
    with torch.no_grad(): preds = model(x)
    assert loss == pytest.approx(F.cross_entropy(preds, y).item(), rel=1e-5)
    assert acc == pytest.approx(accuracy(preds, y).item(), abs=1e-6)
    assert torch.equal(weights(model), before)

def test_a_step_is_the_step_by_hand():
    set_seed(0)
    x, y = torch.rand(6, 4), torch.arange(6)%3
    a, b = mlp(4, 3), mlp(4, 3)
    b.load_state_dict(a.state_dict())
    fit(2, a, F.cross_entropy, sgd(a), [(x[:4], y[:4]), (x[4:], y[4:])], [(x, y)])
    opt = sgd(b)
    for part in (slice(4), slice(4, 6))*2:
        opt.zero_grad()
        F.cross_entropy(b(x[part]), y[part]).backward()
        opt.step()
    assert torch.equal(weights(a), weights(b))
    assert all(p.dtype == torch.float32 and p.grad is None for p in a.parameters())

class Watch(nn.Module):
    "Notes in which mode, and with or without gradients, each batch came."
    def __init__(self):
        super().__init__()
        self.lin, self.log = nn.Linear(2, 10), []
    def forward(self, x):
        self.log.append(('train' if self.training else 'eval', torch.is_grad_enabled()))
        return self.lin(x)

def test_each_epoch_trains_in_train_mode_and_judges_in_eval_mode_without_gradients():
    model = Watch().eval()
    fit(2, model, F.cross_entropy, sgd(model), [(X, Y)]*2, [(X, Y)])
    assert model.log == [('train', True), ('train', True), ('eval', False)]*2
    assert not model.training and torch.is_grad_enabled()         # it is left in eval mode

def test_dropout_does_not_blur_the_verdict(digits):
    set_seed(0)
    model, dl = mlp(p=.5), TensorDL(*digits.valid, device='cpu')
    first, second = [fit(1, model, F.cross_entropy, sgd(model, 0.), list(dl)[:1], dl) for _ in range(2)]
    assert first == second

def test_validation_never_trains():
    model = Watch()
    before = weights(model)
    fit(1, model, F.cross_entropy, sgd(model, 0.), [(X, Y)], [(X, Y)]*3)
    assert torch.equal(weights(model), before) and all(p.grad is None for p in model.parameters())

@pytest.mark.parametrize('make', [
    lambda: TensorDL(X, Y, bs=4, device='cpu'), lambda: DataLoader(Dataset(X, Y), 4), lambda: [(X, Y)],
    lambda: [[X, Y]]])
def test_fit_takes_any_loader_of_pairs(make):
    model = Watch()
    loss, acc = fit(1, model, F.cross_entropy, sgd(model), make(), make())
    assert 0 <= acc <= 1 and loss > 0

def test_other_losses_see_the_raw_outputs():
    model = Watch()
    loss, _ = fit(1, model, lambda p, y: (p-F.one_hot(y, 10)).pow(2).mean(), sgd(model), [(X, Y)], [(X, Y)])
    assert loss > 0

@pytest.mark.parametrize('epochs,exc', [
    (0, ValueError), (-1, ValueError), (1.5, TypeError), ('3', TypeError), (None, TypeError), (True, TypeError)])
def test_bad_epochs(epochs, exc):
    model = Watch()
    with pytest.raises(exc, match='^fit: epochs must be'):
        fit(epochs, model, F.cross_entropy, sgd(model), [(X, Y)], [(X, Y)])
    assert not model.log

@pytest.mark.parametrize('valid', [[], DataLoader(Dataset(X[:0], Y[:0]), 4), iter([])])
def test_empty_validation_is_refused(valid):
    model = Watch()
    with pytest.raises(ValueError, match='^fit: the validation loader gave no batch'):
        fit(1, model, F.cross_entropy, sgd(model), [(X, Y)], valid)

@pytest.mark.parametrize('valid', [[], None])
def test_missing_validation_is_refused_before_an_epoch_is_lost(valid):
    model = Watch()
    with pytest.raises((TypeError, ValueError), match='validation'):
        fit(1, model, F.cross_entropy, sgd(model), [(X, Y)], valid)
    assert not model.log

@pytest.mark.parametrize('train', [[], None, DataLoader(Dataset(X[:3], Y[:3]), 4, drop_last=True), iter([]), (o for o in [])])
def test_an_empty_training_loader_is_refused_in_the_first_epoch(train, capsys):
    model = Watch()
    with pytest.raises(ValueError, match='^fit: the training loader gave no batch'):
        fit(2, model, F.cross_entropy, sgd(model), train, [(X, Y)])
    assert not model.log and not capsys.readouterr().out          # before anything was judged or printed

def test_targets_that_are_no_classes_are_explained():
    model = nn.Linear(2, 2)
    with pytest.raises(TypeError, match='an autoencoder has no accuracy'):
        fit(1, model, F.mse_loss, sgd(model), [(X, X)], [(X, X)])

def test_a_generator_serves_only_one_epoch():
    model = nn.Linear(2, 2)
    batches = [(torch.rand(4, 2), torch.zeros(4, dtype=torch.int64))]
    with pytest.raises(ValueError, match='training loader is used up'):
        fit(2, model, F.cross_entropy, torch.optim.SGD(model.parameters(), 0.1), iter(batches), batches)
