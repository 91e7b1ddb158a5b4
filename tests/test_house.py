"The repository keeps its own rules: modules in step, notebooks clean, imports downwards, everything documented."
import ast, inspect, json, re, shutil, subprocess, sys
from importlib import import_module
from pathlib import Path

import pytest
from fastcore.docments import docments

root = Path(__file__).parents[1]
notebooks = sorted((root/'nbs').glob('[0-9]*.ipynb'))
exp = re.compile(r'^#\|\s*default_exp\s+(\w+)', re.M)

def cells(path): return json.loads(path.read_text(encoding='utf-8'))['cells']
def source(path): return '\n'.join(''.join(c['source']) for c in cells(path) if c['cell_type']=='code')

modules = {m[1]: nb for nb in notebooks if (m := exp.search(source(nb)))}      # in the order of the lessons

def run(cmd, cwd): return subprocess.run([str(Path(sys.executable).parent/cmd[0]), *cmd[1:]], cwd=cwd, check=True, capture_output=True)

@pytest.fixture(scope='module')
def copy(tmp_path_factory):
    "A copy of the project without its modules, exported and cleaned anew."
    folder = tmp_path_factory.mktemp('copy')
    for o in ('nbs', 'pyproject.toml', 'settings.ini', 'setup.py'):
        (shutil.copytree if (root/o).is_dir() else shutil.copy)(root/o, folder/o)
    (folder/'miniai').mkdir()
    shutil.copy(root/'miniai/__init__.py', folder/'miniai')
    run(['nbdev-export'], folder)
    run(['nbdev-clean'], folder)
    return folder

def test_there_is_one_notebook_for_each_module():
    assert len(modules) == len([nb for nb in notebooks if exp.search(source(nb))])
    assert {o.stem for o in (root/'miniai').glob('*.py')} == {*modules, '__init__', '_modidx'}

def test_modules_are_in_step_with_notebooks(copy):
    for o in (copy/'miniai').glob('*.py'): assert o.read_text() == (root/'miniai'/o.name).read_text(), f'{o.name}: run nbdev-export'

def test_notebooks_are_clean(copy):
    for nb in notebooks: assert nb.read_bytes() == (copy/'nbs'/nb.name).read_bytes(), f'{nb.name}: run nbdev-clean'

@pytest.mark.parametrize('nb', notebooks, ids=lambda nb: nb.stem)
def test_notebook_shows_true_outputs(nb):
    outs = [o for c in cells(nb) for o in c.get('outputs', [])]
    assert outs, 'no outputs: python nbs/run.py'
    assert not [o for o in outs if o['output_type']=='error']
    assert nb.stat().st_size < 500_000
    assert not re.search(r'/(root|home|tmp|work|Users)/\w', json.dumps(outs)), 'a path of somebody\'s machine'
    assert 'widget-view' not in json.dumps(outs)

@pytest.mark.parametrize('nb', notebooks, ids=lambda nb: nb.stem)
def test_notebook_is_a_lesson(nb):
    prose = [''.join(c['source']) for c in cells(nb) if c['cell_type']=='markdown']
    assert re.match(r'# .+\n\n> .+', prose[0]), 'title and one-line summary'
    for o in ('## Exercises', '## Summary', '## Sources'): assert any(re.search(f'^{o}', p, re.M) for p in prose), o
    solutions = [c for c in cells(nb) if re.search(r'^#\|\s*code-fold: true', ''.join(c['source']), re.M)]
    assert len(solutions) >= 3 and all(c['metadata'].get('jupyter', {}).get('source_hidden') for c in solutions)
    assert not re.search(r'^\s*from\s+\S+\s+import\s+\*', source(nb), re.M), 'a star import'

def imports(path):
    "Modules of miniai that a module imports, wherever in the file."
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or '').startswith('miniai.'): yield node.module.split('.')[1]
        if isinstance(node, ast.Import): yield from (a.name.split('.')[1] for a in node.names if a.name.startswith('miniai.'))

may = dict(core='', plot='core', sources='core plot', datasets='core plot sources', training='core datasets', conv='core', im2col='core conv',
           layout='core conv',
           cnn='core conv', receptive='core plot', spreadsheet='core', autoencoder='core conv layout', metrics='core', summary='core receptive',
           events='', progress='core plot metrics events', learner='core plot metrics summary events progress',
           speed='core plot metrics events progress learner', safety='core events progress learner',
           callbacks='core plot metrics events progress learner speed safety',
           cli=None)      # None: all that come before it

def test_imports_run_downwards():
    order = list(modules)
    for name in modules:
        allowed = order[:order.index(name)] if may[name] is None else may[name].split()
        used = set(imports(root/'miniai'/f'{name}.py'))
        assert used <= set(allowed), f'{name} imports {used - set(allowed)}'
        assert used <= set(order[:order.index(name)]), f'{name} imports a later lesson'

def public(name):
    "Functions, classes and their public methods that a module defines."
    mod = import_module(f'miniai.{name}')
    for k in mod.__all__:
        o = getattr(mod, k)
        if getattr(o, '__module__', None) != mod.__name__: continue
        yield k, o
        if inspect.isclass(o):
            inherited = {a for b in o.__mro__[1:] for a in vars(b)}
            yield from ((f'{k}.{a}', getattr(f, '__func__', f)) for a, f in vars(o).items()
                        if (a=='__init__' or not a.startswith('_')) and a not in inherited - {'__init__'}
                        and (inspect.isfunction(f) or isinstance(f, classmethod)))

events = re.compile(r'\.(before|after|cleanup)_|\.(predict|get_loss|backward|step|zero_grad|forward)$')

@pytest.mark.parametrize('name', modules)
def test_public_names_are_documented(name):
    for k, o in public(name):
        if events.search(k): continue                     # the same meaning everywhere
        if not k.endswith('__init__'): assert inspect.getdoc(o), f'{name}.{k} has no docstring'
        if inspect.isclass(o): continue
        params = [p for p in inspect.signature(o).parameters if p not in ('self', 'cls')]
        docs = docments(o, full=True)
        for p in params:
            known = docs[p].docment or docs[p].anno is not inspect.Parameter.empty or re.search(
                rf'\*{p},? +#', inspect.getsource(o))                       # docments skips *args and **kwargs
            assert known, f'{name}.{k}: parameter {p} has neither type nor comment'
        assert len(inspect.getsource(o).splitlines()) < 80, f'{name}.{k} is too long'

@pytest.mark.parametrize('name', modules)
def test_source_keeps_the_style(name):
    text = (root/'miniai'/f'{name}.py').read_text()
    code = [o for o in text.splitlines() if not o.startswith(('"""', '           ', '__all__'))]
    assert max(map(len, code)) <= 120, max(code, key=len)
    assert not re.search(r'\bTODO\b|\bFIXME\b', text)
    float64 = [o for o in code if 'float64' in o or '.double()' in o]
    assert all(re.search(r"cpu|ns|vals|t\.dtype==|float32 in place|sums", o) for o in float64), float64

def test_only_one_function_speaks_to_the_network():
    hub = re.compile(r'load_dataset\(|HfApi|urllib|requests\b|httpx')
    for o in (root/'miniai').glob('*.py'):
        for node in ast.walk(ast.parse(o.read_text())):
            if isinstance(node, ast.FunctionDef) and hub.search(ast.unparse(node)): assert (o.stem, node.name)==('sources', '_fetch')

def test_configuration_stands_in_one_place():
    import configparser
    ini = configparser.ConfigParser(delimiters=['='])
    ini.read(root/'settings.ini')
    toml = (root/'pyproject.toml').read_text()
    assert 'requirements' in ini['package'] and 'torch' in ini['package']['requirements'] and 'nbdev' in ini['extras']['dev']
    assert 'torch' not in toml and 'author =' not in toml and 'dynamic' in toml

def test_readme_is_in_step():
    text = (root/'README.md').read_text(encoding='utf-8')
    for nb in notebooks: assert f'nbs/{nb.name}' in text, f'{nb.name} is not in the table of lessons'
    for link in re.findall(r'\]\(((?!http)[^)]+)\)', text): assert (root/link).exists(), link
    ci = (root/'.ci/run').read_text()
    for part in ("pip install -e '.[dev]'", 'nbdev-test && pytest'): assert part in text
    assert "-e '.[dev]'" in ci and 'nbdev-test && pytest' in ci

def test_readme_example_runs(capsys):
    code, = re.findall(r'```python\n(.+?)```', (root/'README.md').read_text(encoding='utf-8'), re.S)
    space = {}
    exec(code, space)
    history = space['cbs'][3].history
    assert len(history)==10 and history[-1]['loss']<history[1]['loss']
