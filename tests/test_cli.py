"miniai-train as a person or a script meets it: a process, its output, its files and its exit code."
import csv, json, os, signal, subprocess, sys, time
from pathlib import Path

import pytest
import torch

from miniai import cli
from miniai.cli import load_model, main, train
from miniai.datasets import load_tensors

command = str(Path(sys.executable).parent/'miniai-train')
files = {'config.json', 'history.csv', 'losses.png', 'model.safetensors', 'reconstructions.png'}

def call(*args, **kw): return subprocess.run([command, *map(str, args)], capture_output=True, text=True, **kw)

def test_a_short_run_writes_everything(tmp_path):
    res = call('--epochs', 2, '--out', tmp_path/'run')
    assert res.returncode==0, res.stderr
    assert {o.name for o in (tmp_path/'run').iterdir()} == files
    for o in ('device', '1,279 images to train', '258 to validate', '260 to test', 'parameters', '8 numbers', 'PCA', 'mean image', 'written'): assert o in res.stdout
    epochs = [o for o in res.stdout.splitlines() if o.startswith('epoch ')]
    assert len(epochs)==2 and '\r' not in res.stdout            # no terminal: one line an epoch
    rows = list(csv.reader((tmp_path/'run/history.csv').open()))
    assert rows[0]==['epoch', 'train_mse', 'valid_mse'] and [o[0] for o in rows[1:]]==['0', '1']
    valid = [float(o.split('valid')[1].split()[0]) for o in epochs]
    assert [float(o[2]) for o in rows[1:]] == pytest.approx(valid, abs=1e-4)        # what was shown is what was kept
    config = json.loads((tmp_path/'run/config.json').read_text())
    assert config['images']==1279 and config['test_mse']!=float(rows[-1][2])

def test_default_run_beats_pca(tmp_path, monkeypatch):
    "The claim of the README, with fewer epochs: at least 40 % below PCA with as many numbers."
    monkeypatch.chdir(tmp_path)
    assert train(epochs=15, out='run')==0
    config = json.loads(Path('run/config.json').read_text())
    assert config['test_mse'] < 0.6*config['pca_mse'] < config['mean_image_mse']

def test_saved_model_gives_the_noted_error(tmp_path):
    assert train(epochs=1, out=str(tmp_path/'run'))==0
    model, x = load_model(tmp_path/'run'), load_tensors('digits').test[0]/255
    with torch.no_grad(): mse = ((model(x)-x)**2).mean().item()
    assert mse == pytest.approx(json.loads((tmp_path/'run/config.json').read_text())['test_mse'], rel=1e-4)

def test_workers_train_too(tmp_path):
    assert train(epochs=1, workers=1, out=str(tmp_path/'run'))==0
    assert load_model(tmp_path/'run').latent==8

def test_ctrl_c_saves_what_was_learnt(tmp_path):
    listen = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)      # a job in the background inherits deafness for Ctrl-C
    proc = subprocess.Popen([command, '--epochs', '1000', '--out', str(tmp_path/'run')], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                            text=True, preexec_fn=listen)
    for line in proc.stdout:
        if line.startswith('epoch '): break                      # training is under way
    proc.send_signal(signal.SIGINT)
    out, err = proc.communicate(timeout=60)
    assert proc.returncode==130 and 'Traceback' not in err
    assert {o.name for o in (tmp_path/'run').iterdir()} == files
    assert json.loads((tmp_path/'run/config.json').read_text())['interrupted']
    assert load_model(tmp_path/'run').latent==8

@pytest.mark.parametrize('args, word', [
    (['--dataset', 'minst'], 'mnist'), (['--epochs', '0'], 'epochs'), (['--epochs', 'x'], 'epochs'), (['--bs', '-1'], 'bs'),
    (['--lr', '0'], 'lr'), (['--lr', 'nan'], 'lr'), (['--latent', '0'], 'latent'), (['--device', 'gpu'], 'device'),
    (['--device', 'cuda:99'], 'cuda:99'), (['--seed', '-1'], 'seed'), (['--workers', '-1'], 'workers'), (['--lattent', '8'], 'lattent'),
    (['--dataset', 'cifar10'], 'MINIAI_DATA')])
def test_bad_options_are_one_line(args, word, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as e: main(args)
    err = capsys.readouterr().err
    assert e.value.code==2 and err.count('\n')==1 and word in err
    assert not any(tmp_path.iterdir())                           # nothing was begun

def test_a_run_is_never_overwritten(tmp_path, capsys):
    (tmp_path/'run').mkdir()
    (tmp_path/'run/precious').write_text('x')
    for out in (tmp_path/'run', tmp_path/'run/precious'):
        with pytest.raises(SystemExit) as e: main(['--out', str(out)])
        assert e.value.code==2 and 'exists' in capsys.readouterr().err
    assert os.listdir(tmp_path/'run')==['precious']

def test_test_images_are_judged_once_and_only_after_the_fit(tmp_path, monkeypatch):
    order = []
    real_fit, real_evaluate = cli._fit, cli._evaluate
    monkeypatch.setattr(cli, '_fit', lambda *args: (order.append('fit'), real_fit(*args))[1])
    monkeypatch.setattr(cli, '_evaluate', lambda *args: (order.append('test'), real_evaluate(*args))[1])
    assert train(epochs=2, out=str(tmp_path/'run'))==0 and order==['fit', 'test']

def raises(exc):
    def f(*args, **kwargs): raise exc('a fault of ours')
    return f

@pytest.mark.parametrize('where', ['ConvAutoencoder', '_announce', '_learner', '_fit', '_evaluate', '_yardsticks', '_save'])
@pytest.mark.parametrize('exc', [ValueError, TypeError, OSError, RuntimeError])
def test_a_fault_of_ours_keeps_its_traceback(where, exc, tmp_path, monkeypatch, capsys):
    if where!='_fit': monkeypatch.setattr(cli, '_fit', lambda *args: False)        # nothing needs training here
    monkeypatch.setattr(cli, where, raises(exc))
    with pytest.raises(exc, match='a fault of ours'): main(['--out', str(tmp_path/'run')])
    assert 'see miniai-train --help' not in capsys.readouterr().err

def test_a_wrong_type_inside_the_checks_is_a_fault_too(tmp_path, monkeypatch):
    monkeypatch.setattr(cli, 'load_tensors', raises(TypeError))
    with pytest.raises(TypeError, match='a fault of ours'): main(['--out', str(tmp_path/'run')])
    assert not (tmp_path/'run').exists()

def test_a_traceback_reaches_the_screen(tmp_path):
    code = "import sys, miniai.cli as c\ndef bad(*a, **k): raise ValueError('a fault of ours')\nc.ConvAutoencoder = bad\nsys.exit(c.main(['--out', 'run']))"
    res = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, cwd=tmp_path)
    assert res.returncode==1 and 'Traceback' in res.stderr and res.stderr.rstrip().endswith('ValueError: a fault of ours')

def test_an_interrupt_during_the_checks(tmp_path, monkeypatch):
    monkeypatch.setattr(cli, 'load_tensors', raises(KeyboardInterrupt))
    assert main(['--out', str(tmp_path/'run')])==130

def test_a_folder_that_cannot_be_made_is_the_users_mistake(tmp_path, capsys):
    (tmp_path/'file').write_text('x')
    with pytest.raises(SystemExit) as e: main(['--out', str(tmp_path/'file'/'run')])
    assert e.value.code==2 and capsys.readouterr().err.count('\n')==1

def test_divergence_is_told(tmp_path, capsys):
    assert train(epochs=1, lr=1e30, out=str(tmp_path/'run'))==1
    assert 'smaller --lr' in capsys.readouterr().out

def test_load_model_refuses_other_files(tmp_path):
    from safetensors.torch import save_file
    save_file({'x': torch.zeros(1)}, tmp_path/'model.safetensors')
    with pytest.raises(ValueError, match='miniai-train'): load_model(tmp_path)
    with pytest.raises(FileNotFoundError, match='runs/'): load_model(tmp_path/'nothing')

def test_help_names_every_option_with_its_default():
    res = call('--help')
    assert res.returncode==0
    for o in ('dataset', 'epochs', 'bs', 'lr', 'latent', 'device', 'seed', 'out', 'workers'):
        assert '(default:' in res.stdout.split(f'--{o} ')[-1].split('--')[0], o

def write_format_1(path, model, **spec):
    "A file as the first version wrote it: sizes in `spec`, no format, no classes."
    from safetensors.torch import save_file
    sizes = dict(latent=model.latent, widths=model.widths, hidden=model.hidden, ni=model.ni, size=model.size)
    save_file(model.state_dict(), path, dict(spec=json.dumps(sizes | spec)))

@pytest.mark.parametrize('kw', [dict(latent=3), dict(latent=40, ni=3, size=(20, 24))])
def test_files_of_the_first_format_are_read(tmp_path, monkeypatch, kw):
    "With the defaults of their time, whatever the defaults are now."
    from torch import nn
    from miniai.autoencoder import ConvAutoencoder
    old = ConvAutoencoder(**kw).eval()
    write_format_1(tmp_path/'model.safetensors', old)
    now = (32, (16, 32), None, 1, 28, nn.Tanh, None, None, False)                   # other defaults for all that files left unsaid
    monkeypatch.setattr(ConvAutoencoder.__init__, '__defaults__', now)
    assert ConvAutoencoder(8).act is nn.Tanh
    new, x = load_model(tmp_path), torch.rand(2, old.ni, *old.size)
    assert torch.equal(new(x), old(x)) and new.config==old.config and not new.training

def test_new_files_say_their_format_and_all_arguments(tmp_path):
    from safetensors import safe_open
    from miniai.autoencoder import ConvAutoencoder
    assert train(epochs=1, out=str(tmp_path/'run'))==0
    with safe_open(tmp_path/'run/model.safetensors', 'pt') as f: meta = f.metadata()
    assert meta['format']=='2' and json.loads(meta['config'])==ConvAutoencoder(8).config==load_model(tmp_path/'run').config

@pytest.mark.parametrize('meta, word', [(dict(format='3', config='{}'), 'update'), (dict(format='two'), 'two'), (dict(format='2', config='{}'), 'latent'),
                                        (dict(format='2'), 'config'), (dict(spec='{'), 'no whole file'), (None, 'spec')])
def test_other_formats_are_explained(tmp_path, meta, word):
    from safetensors.torch import save_file
    save_file({'x': torch.zeros(1)}, tmp_path/'model.safetensors', meta)
    with pytest.raises(ValueError, match=f'load_model: .*{word}'): load_model(tmp_path)
