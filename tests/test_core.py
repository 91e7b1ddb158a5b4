"Seeds, devices, walking through batches, files that are whole or not there, and checks that say what came."
import copy, inspect, os, random
from collections import Counter, OrderedDict, UserDict, defaultdict, namedtuple
from collections.abc import Mapping

import numpy as np
import pytest
import torch
from torch import nn

from miniai.core import (atomic_write, check_choice, check_int, check_ints, check_tensor, collate, collate_device, def_device,
                         default_device, describe, keep_random_state, map_tensors, set_seed, show_error, to_cpu,
                         to_device, untouched)


Pair = namedtuple('Pair', 'image label')

# seeds

def three(): return random.random(), np.random.rand(), torch.rand(1).item()

@pytest.mark.parametrize('seed', [0, 42, 2**32-1, np.int64(7)])
def test_one_seed_starts_all_three_generators(seed):
    set_seed(seed)
    first = three()
    assert all(a!=b for a, b in zip(first, three()))
    set_seed(seed)
    assert three() == first

def test_seeds_differ():
    set_seed(1); first = three()
    set_seed(2); assert all(a!=b for a, b in zip(first, three()))

@pytest.mark.parametrize('seed,exc', [
    (-1, ValueError), (2**32, ValueError), ('42', TypeError), (1.5, TypeError), (None, TypeError), (True, TypeError),
    (np.bool_(True), TypeError), (np.array([1, 2]), TypeError)])
def test_bad_seed_is_refused_and_nothing_is_seeded(seed, exc):
    set_seed(3); expected = three()
    set_seed(3)
    with pytest.raises(exc, match='^set_seed: seed must be '): set_seed(seed)
    assert three() == expected

@pytest.mark.parametrize('exc', [None, ValueError, KeyboardInterrupt])
def test_random_state_is_kept_whatever_happens_inside(exc):
    set_seed(3); expected = three()
    set_seed(3)
    try:
        with keep_random_state():
            inner = three()
            with keep_random_state(): set_seed(99)
            set_seed(1); three()
            if exc: raise exc
    except (ValueError, KeyboardInterrupt) as e: assert type(e) is exc
    assert three() == expected == inner

class Card:
    "Stands in for CUDA: counts who asks for its state, and who seeds it."
    def __init__(self, monkeypatch, awake):
        self.awake, self.asked, self.state, self.seeds = awake, 0, 'start', []
        monkeypatch.setattr(torch.cuda, 'is_initialized', lambda: self.awake)
        monkeypatch.setattr(torch.cuda, 'get_rng_state_all', self.get)
        monkeypatch.setattr(torch.cuda, 'set_rng_state_all', lambda state: setattr(self, 'state', state))
        monkeypatch.setattr(torch.cuda, 'manual_seed_all', self.seeds.append)
    def get(self):
        self.asked += 1
        self.awake = True                  # as torch does
        return self.state

looks = pytest.mark.parametrize('look', [keep_random_state, lambda: untouched(nn.Linear(2, 2), weights=True)])

@looks
def test_looking_does_not_wake_cuda(look, monkeypatch):
    card = Card(monkeypatch, awake=False)
    with look(): three()
    assert not card.asked and not card.awake and not card.seeds

@looks
def test_the_state_of_a_card_in_use_is_kept(look, monkeypatch):
    card = Card(monkeypatch, awake=True)
    with look(): card.state = 'moved'
    assert card.asked == 1 and card.state == 'start' and not card.seeds

@looks
def test_a_card_first_used_inside_begins_again_from_its_seed(look, monkeypatch):
    set_seed(5)
    card = Card(monkeypatch, awake=False)
    with look(): card.awake = True
    assert card.seeds == [5] and not card.asked

@looks
def test_a_seed_set_inside_does_not_wait_for_a_sleeping_card(look, monkeypatch):
    set_seed(5)
    card = Card(monkeypatch, awake=False)
    with look(): set_seed(99)
    assert card.seeds[-1] == 5 and not card.awake

def test_mps_state_is_kept_where_there_is_one(monkeypatch):
    states = []
    monkeypatch.setattr(torch.backends.mps, 'is_available', lambda: True)
    monkeypatch.setattr(torch.mps, 'get_rng_state', lambda: 'start')
    monkeypatch.setattr(torch.mps, 'set_rng_state', states.append)
    with keep_random_state(): pass
    assert states == ['start']

@pytest.fixture
def deterministic_state(monkeypatch):
    was, bench = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark
    monkeypatch.setenv('CUBLAS_WORKSPACE_CONFIG', 'x')      # so that monkeypatch puts back what was there
    monkeypatch.delenv('CUBLAS_WORKSPACE_CONFIG')
    torch.use_deterministic_algorithms(False)
    yield
    torch.use_deterministic_algorithms(was)
    torch.backends.cudnn.benchmark = bench

def test_deterministic_is_switched_on_and_never_off(deterministic_state):
    torch.backends.cudnn.benchmark = True
    set_seed(0)
    assert not torch.are_deterministic_algorithms_enabled() and torch.backends.cudnn.benchmark
    set_seed(0, deterministic=True)
    set_seed(0)
    assert torch.are_deterministic_algorithms_enabled() and not torch.backends.cudnn.benchmark
    assert os.environ['CUBLAS_WORKSPACE_CONFIG'] == ':4096:8'

def test_deterministic_keeps_the_users_workspace(deterministic_state, monkeypatch):
    monkeypatch.setenv('CUBLAS_WORKSPACE_CONFIG', ':16:8')
    set_seed(0, deterministic=True)
    assert os.environ['CUBLAS_WORKSPACE_CONFIG'] == ':16:8'

# looking at a model

def picture(model):
    "All that may move: modes, tensors by name with their identity and numbers, gradients."
    tensors = [*model.named_buffers(remove_duplicate=False), *model.named_parameters(remove_duplicate=False)]
    grads = [(k, None if t.grad is None else (id(t.grad), t.grad.dtype, t.grad.tolist())) for k, t in tensors]
    return ([m.training for m in model.modules()], list(model.state_dict()), grads,
            [(k, id(t), t.data_ptr(), t.dtype, t.tolist()) for k, t in tensors])

class Tied(nn.Module):
    "Two layers with one weight, a buffer that is None, and one that is not saved."
    def __init__(self):
        super().__init__()
        self.a, self.b, self.bn = nn.Linear(3, 3), nn.Linear(3, 3), nn.BatchNorm1d(3)
        self.b.weight = self.a.weight
        self.register_buffer('nothing', None)
        self.register_buffer('count', torch.zeros(1), persistent=False)
    def forward(self, x): return self.bn(self.b(self.a(x)))

def swap_buffer(m): m.bn.running_mean = m.bn.running_mean+1
def change_buffer(m): m.count += 1
def fill_none(m): m.nothing = torch.ones(2)
def forget_buffer(m): m.count = None
def delete_buffer(m): del m.bn.running_var
def new_buffer(m): m.register_buffer('fresh', torch.ones(1), persistent=False)
def modes(m): m.eval()
def one_mode(m): m.bn.training = not m.bn.training
def forward(m): m(torch.rand(4, 3))
def other_dtype(m):
    for b in m.buffers(): b.data = b.data.double()

@pytest.mark.parametrize('weights', [False, True])
@pytest.mark.parametrize('exc', [None, ValueError, KeyboardInterrupt])
@pytest.mark.parametrize('act', [swap_buffer, change_buffer, fill_none, forget_buffer, delete_buffer, new_buffer, modes,
                                 one_mode, forward, other_dtype])
def test_buffers_and_modes_end_as_they_began(act, exc, weights):
    set_seed(1)
    model = Tied()
    model.a.eval()
    before, rows = picture(model), copy.deepcopy(model.state_dict())
    set_seed(3); expected = three()
    set_seed(3)
    try:
        with untouched(model, weights):
            act(model); three()
            assert act is one_mode or act is forward or picture(model)!=before
            if exc: raise exc
    except (ValueError, KeyboardInterrupt) as e: assert type(e) is exc
    assert three() == expected and picture(model) == before and not model.nothing
    assert all(torch.equal(v, rows[k]) for k, v in model.state_dict().items())

def backward(m): m(torch.rand(4, 3)).pow(2).sum().backward()
def step(m):
    backward(m)
    torch.optim.Adam(m.parameters()).step()
def no_grads(m): m.zero_grad(set_to_none=True)
def zero_grads(m): m.zero_grad(set_to_none=False)
def new_weight(m): m.a.weight = nn.Parameter(torch.ones(3, 3))
def untie(m): m.b.weight = nn.Parameter(m.a.weight.detach().clone())
def no_bias(m): m.a.register_parameter('bias', None)
def zero_weight(m): nn.init.zeros_(m.a.weight)
def halve(m): m.half()
def to_meta(m): m.to('meta')

@pytest.mark.parametrize('graded', [False, True])
@pytest.mark.parametrize('act', [backward, step, no_grads, zero_grads, new_weight, untie, no_bias, zero_weight, halve,
                                 to_meta])
def test_weights_and_gradients_end_as_they_began(act, graded):
    set_seed(1)
    model = Tied()
    if graded: backward(model)
    before = picture(model)
    with untouched(model, weights=True): act(model)
    assert picture(model) == before and model.a.weight is model.b.weight
    with untouched(model): zero_weight(model)
    assert not model.a.weight.any()                                 # nobody asked for the weights

def test_a_shared_weight_is_copied_once(monkeypatch):
    model, clones = nn.ModuleList([nn.Linear(3, 3, bias=False)]*2), []
    model.append(nn.Linear(3, 3, bias=False))
    model[2].weight = model[0].weight
    clone = torch.Tensor.clone
    monkeypatch.setattr(torch.Tensor, 'clone', lambda t, *args, **kwargs: clones.append(1) or clone(t, *args, **kwargs))
    with untouched(model, weights=True): pass
    assert len(clones) == 1

def test_a_model_on_meta_has_places_and_no_numbers():
    model = nn.Sequential(nn.Linear(3, 2, device='meta'), nn.BatchNorm1d(2, device='meta'))
    places = [id(t) for t in model.state_dict(keep_vars=True).values()]
    with untouched(model, weights=True): model.to_empty(device='cpu').eval()
    assert [id(t) for t in model.state_dict(keep_vars=True).values()] == places and model[1].training
    assert {t.device.type for t in model.state_dict().values()} == {'meta'}

def test_a_graph_from_before_can_still_be_followed():
    bn = nn.BatchNorm1d(3).eval()
    x = torch.rand(4, 3, requires_grad=True)
    loss = bn(x).sum()                                              # remembers the running statistics
    with untouched(bn, weights=True): bn.train()
    loss.backward()
    assert x.grad is not None

def test_a_buffer_with_a_graph_does_not_warn(recwarn):
    m = nn.Module()
    m.register_buffer('b', nn.Parameter(torch.ones(2))*2)
    with untouched(m, weights=True): m.b.data.zero_()
    assert m.b.tolist() == [2, 2] and not recwarn.list

def test_looks_may_be_nested():
    model = Tied()
    before = picture(model)
    with untouched(model, weights=True):
        step(model)
        inner = picture(model)
        with untouched(model, weights=True): step(model); modes(model)
        assert picture(model) == inner != before
    assert picture(model) == before

# devices

@pytest.mark.parametrize('name', ['cpu', 'cuda', 'cuda:1', 'mps', ' cpu '])
def test_device_of_the_users_choice(name, monkeypatch):
    monkeypatch.setenv('MINIAI_DEVICE', name)
    assert default_device() == name.strip()

@pytest.mark.parametrize('name', ['gpu', 'CUDA', 'meta', 'cuda:', 'cuda:-1', 'cuda:x', '0'])
def test_unknown_device_is_refused(name, monkeypatch):
    monkeypatch.setenv('MINIAI_DEVICE', name)
    with pytest.raises(ValueError, match=f'^MINIAI_DEVICE={name!r} .*Use cpu, cuda'): default_device()

@pytest.mark.parametrize('mps,cuda,expected', [
    (True, True, 'mps'), (True, False, 'mps'), (False, True, 'cuda'), (False, False, 'cpu')])
@pytest.mark.parametrize('env', [None, '', '  '])
def test_fastest_device_there_is(mps, cuda, expected, env, monkeypatch):
    if env is None: monkeypatch.delenv('MINIAI_DEVICE', raising=False)
    else: monkeypatch.setenv('MINIAI_DEVICE', env)
    monkeypatch.setattr(torch.backends.mps, 'is_available', lambda: mps)
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: cuda)
    assert default_device() == expected

def test_def_device_is_a_plain_string_and_the_default():
    assert type(def_device) is str and inspect.signature(to_device).parameters['device'].default == def_device

@pytest.mark.parametrize('device,fast', [
    ('cuda', True), ('cuda:1', True), (torch.device('cuda:0'), True), ('mps', False), (torch.device('mps'), False),
    ('cpu', False), ('meta', False)])
def test_only_copies_to_cuda_are_non_blocking(device, fast, monkeypatch):
    calls = []
    monkeypatch.setattr(torch.Tensor, 'to', lambda self, *args, **kwargs: calls.append((args, kwargs)) or self)
    to_device((torch.ones(1), {'y': torch.ones(1)}), device)
    assert calls == ([] if device=='cpu' else [((torch.device(device),), {'non_blocking': fast})]*2)      # they are there already

# walking through a batch

def leaf(): return torch.ones(2)
Odd = object()

NESTS = {
    'tensor': leaf(), 'dict': {'a': leaf()}, 'list': [leaf(), leaf()], 'tuple': (leaf(), 'text'),
    'named tuple': Pair(leaf(), 3), 'defaultdict': defaultdict(list, a=leaf()),
    'OrderedDict': OrderedDict(b=leaf(), a=leaf()), 'UserDict': UserDict(a=leaf()), 'Counter': Counter(a=2),
    'nested': {'p': Pair([leaf(), None], ({'z': leaf()},)), 'n': 3}, 'empty list': [], 'empty dict': {},
    'empty tuple': (), 'torch.return_types': torch.max(torch.rand(2, 2), 0), 'torch.Size': torch.Size([1, 2])}

def form(x):
    "Types, keys and devices of all that is in `x`."
    if isinstance(x, torch.Tensor): return x.device.type, x.shape, x.dtype
    if isinstance(x, (dict, UserDict)): return type(x), [(k, form(v)) for k, v in x.items()]
    if isinstance(x, (list, tuple)): return type(x), [form(o) for o in x]
    return type(x), x

@pytest.mark.parametrize('x', NESTS.values(), ids=NESTS.keys())
def test_containers_keep_their_form_and_the_original_stays(x):
    before = form(x)
    meta = form(map_tensors(lambda t: t.to('meta'), x))
    assert form(to_device(x, 'meta')) == meta and str(meta) == str(before).replace("'cpu'", "'meta'")
    assert form(x) == before
    assert form(to_cpu(x)) == before

def test_a_defaultdict_keeps_its_default():
    moved = to_device(defaultdict(list, a=leaf()), 'cpu')
    assert moved['new'] == [] and moved.default_factory is list

@pytest.mark.parametrize('x', [None, 3, 2.5, 'text', b'b', Odd, np.ones(2), range(3), {1, 2}, torch.float32])
@pytest.mark.parametrize('f', [to_device, to_cpu])
def test_other_leaves_pass_untouched(f, x):
    assert f(x) is x and f([x])[0] is x

def test_what_is_there_already_is_not_copied():
    t = leaf()
    assert to_device({'a': [t]}, 'cpu')['a'][0] is t

KEPT = torch.float32, torch.float64, torch.uint8, torch.int64, torch.bool, torch.complex64

@pytest.mark.parametrize('dtype,expected', [(torch.float16, torch.float32), (torch.bfloat16, torch.float32)] +
                         [(o, o) for o in KEPT])
def test_to_cpu_gives_dtypes_that_numpy_knows(dtype, expected):
    res = to_cpu([torch.ones(2).to(dtype)])[0]
    assert res.dtype == expected and res.numpy().tolist() == torch.ones(2).to(expected).tolist()

def test_to_cpu_lets_go_of_history():
    w = torch.ones(2, requires_grad=True)
    half = to_cpu((w*2).half())
    assert not half.requires_grad and half.grad_fn is None and not to_cpu(w).requires_grad and w.requires_grad
    assert not isinstance(to_cpu(nn.Parameter(leaf())), nn.Parameter)

# collating

@pytest.mark.parametrize('item', [
    0.5, np.float64(.5), np.ones(3), torch.ones(2, dtype=torch.float64), (torch.ones(2), 0.5),
    {'x': np.ones((2, 2)), 'y': [0.5, (1.5,)]}, Pair(1.5, 2)])
@pytest.mark.parametrize('f', [collate, collate_device])
def test_collate_makes_no_float64(f, item):
    seen = []
    map_tensors(lambda t: seen.append(t.dtype), f([item]*3))
    assert seen and torch.float64 not in seen

def test_collate_leaves_other_kinds_alone():
    x, y, s = collate([(torch.zeros(2, dtype=torch.uint8), 3, 'a')]*2)
    assert x.dtype == torch.uint8 and y.dtype == torch.int64 and list(s) == ['a', 'a']

# files

def names(folder): return sorted(o.name for o in folder.iterdir())

@pytest.mark.parametrize('exc', [OSError('full'), KeyboardInterrupt(), SystemExit(1), GeneratorExit()])
@pytest.mark.parametrize('old', ['yesterday', None])
def test_an_interrupted_write_leaves_what_was_there(tmp_path, exc, old):
    file = tmp_path/'model.bin'
    if old: file.write_text(old)
    with pytest.raises(type(exc)):
        with atomic_write(file) as tmp:
            tmp.write_text('hal')
            raise exc
    assert names(tmp_path) == (['model.bin'] if old else []) and (not old or file.read_text() == old)

def test_a_good_write_replaces_and_leaves_nothing_else(tmp_path):
    file = tmp_path/'a'/'b'/'w.tar.safetensors'                    # the folders are made
    for text in ('one', 'two'):
        with atomic_write(str(file)) as tmp:
            assert tmp.parent == file.parent and tmp.suffix == '.safetensors' and not tmp.exists()
            tmp.write_text(text)
        assert names(file.parent) == [file.name] and file.read_text() == text

def test_two_writers_at_once_do_not_meet(tmp_path):
    file = tmp_path/'x.txt'
    with atomic_write(file) as a, atomic_write(file) as b:
        a.write_text('a'); b.write_text('b')
        assert a != b
    assert file.read_text() == 'a' and names(tmp_path) == ['x.txt']

def test_a_temporary_file_that_nobody_wrote_keeps_the_old(tmp_path):
    (tmp_path/'x').write_text('old')
    with pytest.raises(FileNotFoundError):
        with atomic_write(tmp_path/'x'): pass
    assert (tmp_path/'x').read_text() == 'old'

def test_a_folder_is_not_overwritten(tmp_path):
    with pytest.raises(OSError):
        with atomic_write(tmp_path/'sub'/'..') as tmp: tmp.write_text('x')
    (tmp_path/'dir').mkdir()
    with pytest.raises(OSError):
        with atomic_write(tmp_path/'dir') as tmp: tmp.write_text('x')
    assert (tmp_path/'dir').is_dir() and not [o for o in names(tmp_path) if o.startswith('.')]

# saying what came

class Mute:
    def __repr__(self): raise RuntimeError('no words')

SELF = []
SELF.append(SELF)
DEEP = 0
for _ in range(6): DEEP = [DEEP]*10

@pytest.mark.parametrize('x,expected', [
    (None, 'NoneType None'), (3, 'int 3'), ('a', "str 'a'"), (torch.tensor(1.), 'float32 []'),
    (torch.ones(2, 0).int(), 'int32 [2,0]'), (torch.ones(2, requires_grad=True), 'float32 [2]'),
    (torch.zeros(4, device='meta'), 'float32 [4] on meta'), (np.zeros((2, 3), np.uint8), 'numpy uint8 [2,3]'),
    (np.array(3), 'numpy int64 []'), (np.float32(1.5), 'float32 np.float32(1.5)'), ([], 'list()'), ({}, '{}'),
    (torch.Size([1]), 'Size(int 1)'), (Odd, 'object'), (len, 'builtin_function_or_method <built-in function len>'),
    (lambda: 0, 'function'), (Pair(torch.ones(1), 2), 'Pair(float32 [1], int 2)'),
    ({'a': [torch.ones(2)]}, "{'a': list(float32 [2])}"),
    (list(range(10**6)), 'list(int 0, int 1, int 2, int 3, … 1000000 in all)')])
def test_describe(x, expected): assert describe(x) == expected

@pytest.mark.parametrize('x', [
    'x'*10_000, {1, 2}, [np.zeros(9)]*99, torch.nn.Linear(2, 2), {i: i for i in range(1000)},
    pytest.param(nn.Sequential(nn.Linear(2, 2), nn.ReLU()), id='lines'),
    pytest.param(Mute(), id='mute'),
    pytest.param(SELF, id='self'),
    pytest.param(DEEP, id='deep'),
    pytest.param({'k'*1000: 1}, id='long key')])
def test_describe_is_a_few_characters_on_one_line(x):
    res = describe(x)
    assert len(res) < 400 and '\n' not in res

# checks

@pytest.mark.parametrize('value,hint', [
    ('minst', " Did you mean 'mnist'?"), ('MNIST', ''), ('zebra', ''), (None, ''), (3, ''),
    (['mnist'], " Did you mean 'mnist'?")])
def test_check_choice_names_what_is_allowed(value, hint):
    with pytest.raises(ValueError) as e: check_choice('load', 'name', value, (o for o in ['digits', 'mnist']))
    assert str(e.value) == f'load: name must be one of digits, mnist; got {value!r}.{hint}'

def test_check_choice_returns_the_value(): assert check_choice('f', 'p', 'b', 'abc') == 'b'

@pytest.mark.parametrize('options', [[1, 2], [None, 'd']])
def test_check_choice_with_options_of_other_types(options):
    with pytest.raises(ValueError, match='^f: p must be one of '): check_choice('f', 'p', 'c', options)

@pytest.mark.parametrize('value', [3, np.int8(3), np.uint64(3), torch.tensor(3), np.array(3)])
def test_check_int_gives_a_plain_int(value):
    res = check_int('f', 'n', value, hi=3)
    assert res == 3 and type(res) is int

@pytest.mark.parametrize('value', [
    3., '3', None, True, np.True_, np.float64(3), torch.tensor(3.), [3], np.array([3, 3]), 3j])
def test_check_int_wants_a_whole_number(value):
    with pytest.raises(TypeError, match='^f: n must be a whole number, got '): check_int('f', 'n', value)

@pytest.mark.parametrize('value,kwargs,span', [
    (0, {}, 'at least 1'), (-1, dict(lo=0), 'at least 0'), (9, dict(lo=2, hi=8), 'between 2 and 8'),
    (1, dict(lo=2, hi=8), 'between 2 and 8'), (10**30, dict(hi=5), 'between 1 and 5')])
def test_check_int_names_the_range(value, kwargs, span):
    with pytest.raises(ValueError) as e: check_int('f', 'n', value, **kwargs)
    assert str(e.value) == f'f: n must be {span}, got {value}.'

x2 = torch.rand(2, 3)

@pytest.mark.parametrize('x,dims,kind', [
    (x2, '', ''), (x2, 'N,C', 'float'), (x2.half(), '', 'float'), (x2.byte(), 'N,C', 'integer'),
    (x2.long(), '', 'integer'), (x2>0, 'N,C', ''), (torch.tensor(1), '', 'integer')])
def test_check_tensor_hands_it_back(x, dims, kind): assert check_tensor('f', 'x', x, dims, kind) is x

@pytest.mark.parametrize('x,dims,kind,exc,want', [
    ([1], '', '', TypeError, 'a tensor, got list(int 1).'),
    (np.ones(2), 'N', 'float', TypeError, 'a float tensor [N], got numpy float64 [2].'),
    (None, '', '', TypeError, 'a tensor, got NoneType None.'),
    (x2, 'N,C', 'integer', TypeError, 'an integer tensor [N,C], got float32 [2,3].'),
    (x2>0, '', 'integer', TypeError, 'an integer tensor, got bool [2,3].'),
    (x2.long(), '', 'float', TypeError, 'a float tensor, got int64 [2,3].'),
    (x2.cfloat(), '', 'float', TypeError, 'a float tensor, got complex64 [2,3].'),
    (x2.cfloat(), '', 'integer', TypeError, 'an integer tensor, got complex64 [2,3].'),
    (x2, 'N', 'float', ValueError, 'a float tensor [N], got float32 [2,3].'),
    (torch.tensor(1.), 'N', '', ValueError, 'a tensor [N], got float32 [].')])
@pytest.mark.parametrize('fix', ['', 'Do this.'])
def test_check_tensor_says_what_was_expected_and_what_came(x, dims, kind, exc, want, fix):
    with pytest.raises(exc) as e: check_tensor('f', 'x', x, dims, kind, fix)
    assert str(e.value) == f'f: x must be {want} {fix}'.rstrip()

def test_show_error_prints_and_insists(capsys):
    assert show_error(LookupError, lambda: [][1]) == 'list index out of range'
    assert capsys.readouterr().out == 'IndexError: list index out of range\n'
    with pytest.raises(AssertionError, match='KeyError was expected'): show_error(KeyError, lambda: 1)
    with pytest.raises(ZeroDivisionError): show_error(KeyError, lambda: 1/0)

@pytest.mark.skipif(os.name!='posix', reason='links and permissions of POSIX')
def test_a_link_stays_a_link_and_permissions_stay(tmp_path):
    real, link = tmp_path/'there'/'real.txt', tmp_path/'link.txt'
    real.parent.mkdir()
    real.write_text('old')
    real.chmod(0o600)
    link.symlink_to(real)
    with atomic_write(link) as tmp: tmp.write_text('new')
    assert link.is_symlink() and real.read_text()=='new' and real.stat().st_mode & 0o777==0o600
    assert [o.name for o in real.parent.iterdir()]==['real.txt']

def test_a_foreign_mapping_is_left_alone():
    class Wrapped(Mapping):
        def __init__(self, d): self.d = dict(d)
        def __getitem__(self, k): return self.d[k]
        def __iter__(self): return iter(self.d)
        def __len__(self): return len(self.d)
    x = Wrapped({'a': torch.ones(2)})
    y = map_tensors(lambda t: t*10, x)
    assert isinstance(y, Wrapped) and y['a'][0]==10 and x['a'][0]==1

@pytest.mark.parametrize('values, exc, word', [(8, TypeError, 'must be a tuple'), ((), ValueError, 'is empty'), ((8, 0), ValueError, 'at least 1'),
                                               ((8, 2.5), TypeError, 'whole number'), ('88', TypeError, 'must be a tuple')])
def test_check_ints_refuses(values, exc, word):
    with pytest.raises(exc, match=f'cnn: widths.*{word}'): check_ints('cnn', 'widths', values, least=1)

def test_check_ints_gives_plain_ints():
    got = check_ints('cnn', 'widths', [8, np.int64(16)])
    assert got==(8, 16) and all(type(o) is int for o in got) and check_ints('cnn', 'hidden', [])==()
