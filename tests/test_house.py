"""The rules of the house. Each takes a `House` and returns complaints; beside it stand examples that break it, so that
we know that it can fail. `python tests/test_house.py` prints what is counted in each module."""
import ast, doctest, json, re, shutil, subprocess, sys
from configparser import ConfigParser
from functools import partial
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import nbformat
import pytest
import torch
import torch.nn.functional as F
from torch import optim
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from house import (House, code, comments, count, decades, default_exp, defined, imports, inherited, is_folded, limits,
                   most_triples, nodes, parts, public, root, source, table, tour, untold)
from miniai.autoencoder import ConvAutoencoder
from miniai.callbacks import EMACB, GradClipCB, NaNStopCB, OneCycleCB, RecorderCB
from miniai.cnn import simple_cnn
from miniai.core import set_seed
from miniai.datasets import DataLoaders
from miniai.events import Callback
from miniai.learner import DeviceCB, Learner, ReconstructCB, TrainCB
from miniai.metrics import MSE, PSNR, Accuracy, TopK
from miniai.progress import MetricsCB

rules, breaks = [], []            # the rules; and (rule, word, house): of this house the rule complains with this word

def rule(*bad):
    "Register a rule, with pairs of a word and a house that breaks it."
    def register(f):
        rules.append(f)
        breaks.extend((f, word, house) for word, house in bad)
        return f
    return register

def md(text): return dict(cell_type='markdown', source=text, metadata={})
def py(text, folded=False, outputs=(dict(output_type='stream', text='1'),)):
    metadata = {'jupyter': {'source_hidden': True}} if folded else {}
    return dict(cell_type='code', source=text, metadata=metadata, outputs=list(outputs))
def lesson(*cells): return House(lessons={'00_core': list(cells)}, sizes={'00_core': 0})
def module(text): return House(modules={'00_core': text})
def twice(names): return sorted({o for o in names if names.count(o)>1})

# --- imports

@rule(('later',     House(modules={'00_core': 'from .plot import show', '02_plot': 'def show(): ...'})),
      ('later',     House(modules={'00_core': 'def f():\n    from . import plot', '02_plot': ''})),
      ('later',     House(modules={'00_core': 'import miniai.plot as p', '02_plot': ''})),
      ('later',     House(modules={'00_core': 'from miniai.plot import show', '02_plot': ''})),
      ('later',     House(modules={'40_autoencoder': 'from .folders import x', '60_folders': 'x = 1'})),
      ('itself',    House(modules={'00_core': 'from .core import x\nx = 1'})),
      ('no module', House(modules={'00_core': 'from .old import x'})),
      ('no module', House(modules={'00_core': 'from miniai import *'})),
      ('no module', House(modules={'00_core': 'import miniai'})),
      ('no module', House(modules={'00_core': 'importlib.import_module(".plot", "miniai")', '02_plot': ''})))
def imports_run_downwards(house):
    "A module imports from lessons before its own. So nothing in 00 to 40 can import what is built on it, 50 to 90."
    number = {k[3:]: k[:2] for k in house.modules}
    for k, text in house.modules.items():
        for mod in sorted({mod for mod, *_ in imports(text)}):
            if mod not in number: yield f'{k} imports {mod!r}, which is no module of a lesson'
            elif mod==k[3:]: yield f'{k} imports itself'
            elif number[mod]>=k[:2]: yield f'{k} imports the later lesson {mod}'

def speed(text):
    "A module that comes after one that defines Callback, and one that hands it on."
    owner, other = 'class Callback: ...', 'from .events import Callback\n_all_ = ["Callback"]'
    return House(modules={'21_events': owner, '23_learner': other, '24_speed': text})

@rule(('Callback', speed('from .learner import Callback')),
      ('Callback', speed('def f():\n    from miniai.learner import Callback as C')),
      ('Callback', speed('from . import learner as le\nclass A(le.Callback): ...')),
      ('Callback', speed('import miniai.learner\nclass A(miniai.learner.Callback): ...')),
      ('torch',    House(modules={'00_core': 'import torch', '02_plot': 'from .core import torch'})))
def names_come_from_their_owner(house):
    "Inside the package a name is imported from the module that defines it, never from one that hands it on."
    owned = {k[3:]: set(defined(text)) for k, text in house.modules.items()}
    for k, text in house.modules.items():
        used = [o for o in imports(text) if o[0] in owned]
        modules = {alias: mod for mod, name, alias in used if name is None}
        attributes = [(ast.unparse(o.value), o.attr) for o in nodes(text, ast.Attribute)]
        names = {(mod, name) for mod, name, _ in used if name}
        names |= {(modules[alias], name) for alias, name in attributes if alias in modules}
        for mod, name in sorted(names):
            owners = ' and '.join(m for m, o in owned.items() if name in o) or 'no module of ours'
            if name not in owned[mod]: yield f'{k} takes {name} from {mod}; it is defined in {owners}'

@rule(('star', module('import os\nfrom os.path import *')), ('star', lesson(py('from miniai.core import *'))))
def no_star_imports(house):
    texts = house.modules | {f'nbs/{k}': code(cells) for k, cells in house.lessons.items()}
    for k, text in texts.items():
        if m := re.search(r'^\s*from\s+\S+\s+import\s+\*', text, re.M): yield f'{k}: a star import: {m[0].strip()}'

# --- lessons

@rule(('name',       House(lessons={'11b_events': []})),
      ('name',       House(lessons={'1_core': []})),
      ('name',       House(lessons={'00_Core': []})),
      ('name',       House(lessons={'core': []})),
      ('decade',     House(lessons={'70_core': []})),
      ('number 00',  House(lessons={'00_core': [], '00_plot': []})),
      ('lesson core', House(lessons={'00_core': [], '02_core': []})),
      ('module core', House(lessons={'00_core': [py('#| default_exp core')], '02_plot': [py('#| default_exp core')]})))
def lessons_are_numbered_in_decades(house):
    "Two digits, an underscore, a name in lower case, no letter behind the number. Nothing is given twice."
    for k in house.lessons:
        if not re.fullmatch(r'\d\d(_[a-z][a-z0-9]*)+', k): yield f'{k}: the name is not NN_name in lower case'
        elif k[0]+'0' not in decades: yield f'{k}: the decade {k[0]}0 has no name'
    given = dict(number=[k[:2] for k in house.lessons], lesson=[k[3:] for k in house.lessons],
                 module=[m[1] for cells in house.lessons.values() if (m := default_exp.search(code(cells)))])
    yield from (f'the {what} {o} twice' for what, names in given.items() for o in twice(names))

# the lesson *core*; the lessons *core*, *plot* and *sources*; the lessons *core* to *plot*; the *core* lesson
between   = r"(?:'s)?(?:,?\s+(?:(?:and|or|to|from)\s+)*(?=\*))?"
named     = re.compile(rf'\blessons?\s+(?:\*\w+\*{between})+|\*\w+\*\s+lessons?\b', re.I)
by_number = re.compile(r'\blessons?\s+\(?\d+[a-z]?\b', re.I)
needs     = re.compile(r'^\*\*What you need to know\.\*\*.*', re.M)
notebook  = re.compile(r'\b(\d\w*)\.ipynb\b')

def says(text): return House(lessons={'00_core': [], '02_plot': [md(text)]})
def file(text): return House(lessons={'00_core': []}, texts={'a file': text})

@rule(('nowhere',    says('as in the lesson *nowhere*')),
      ('nowhere',    says('The lessons *core*, *plot* and *nowhere* show it')),
      ('nowhere',    says('the lessons *core* to *nowhere*')),
      ('nowhere',    says('the *nowhere* lesson')),
      ('nowhere',    says('**What you need to know.** From *nowhere* a lot.')),
      ('nowhere',    House(lessons={'00_core': [py('x = 1  # see the lesson *nowhere*')]})),
      ('nowhere',    file('see the lesson\n*nowhere*')),
      ('lesson 05',  says('as in lesson 05')),
      ('Lessons 11b', says('Lessons 11b and 12')),
      ('lesson 07',  file('# lesson 07')),
      ('04',         says('**What you need to know.** The lesson *core*, and from 04 `fit`.')),
      ('11b_events', file('nbs/11b_events.ipynb')))
def references_lead_somewhere(house):
    "A lesson is named (`the lesson *core*`), and is there. Numbers are for fast.ai's lessons, in a line that says so."
    names = {k[3:] for k in house.lessons}
    cells = {f'{k}, cell {i}': source(c) for k, cells in house.lessons.items() for i, c in enumerate(cells)}
    for where, text in (house.texts | cells).items():
        known = needs.findall(text)
        told = re.findall(r'\*(\w+)\*', ' '.join([*named.findall(text), *(o[2:].partition('**')[2] for o in known)]))
        yield from (f'{where}: there is no lesson {o}' for o in sorted({*told} - names))
        yield from (f'{where}: there is no {o}.ipynb' for o in notebook.findall(text) if o not in house.lessons)
        numbers = [n for o in known for n in re.findall(r'(?<![\w.])\d\d[a-z]?(?![\w.,×%])', o)]
        theirs = [o for o in text.splitlines() if re.search(r'fast\.ai|course', o, re.I)]
        numbers += [m[0] for o in text.splitlines() if o not in theirs and (m := by_number.search(o))]
        yield from (f'{where}: {o} is a lesson by its number' for o in numbers)

opening  = 'What you will build', 'What you need to know', 'How long it takes'
sections = '## Exercises', '## Summary', '## Sources'
begin    = md('# Core\n\n> A line.')
whole    = [begin, md(' '.join(f'**{o}.**' for o in opening)), *map(md, sections)]
def without(words): return lesson(*(md(source(c).replace(words, '')) for c in whole))

@rule(('title', lesson(md('# Core'), *whole)),
      ('title', lesson(*whole[1:])),
      *((o, without(o)) for o in sections + opening))
def notebooks_are_lessons(house):
    "A title with a one-line summary, what a reader asks first, and the three sections of the end."
    for k, cells in house.lessons.items():
        prose = [source(c) for c in cells if c['cell_type']=='markdown'] or ['']
        if not re.match(r'# .+\n\n> .+', prose[0]): yield f'{k}: the first cell is no title with a one-line summary'
        yield from (f'{k}: {o} is not told at the beginning' for o in opening if f'**{o}' not in ' '.join(prose[:4]))
        yield from (f'{k}: no {o}' for o in sections if not re.search(f'^{o}', '\n'.join(prose), re.M))

stub   = py('# 1. your turn\ndef f(x): ...')
check  = py('def check_f(f):\n    assert f(1)==2, "f adds one"')
answer = py('#| code-fold: true\ndef f(x): return x+1\ncheck_f(f)', folded=True)
three  = [stub, check, answer]*3
def exercises(*cells): return lesson(md('## Exercises'), *cells, *three[:6], md('## Summary'))

@rule(('2 exercises',  lesson(md('## Exercises'), *three[:6], md('## Summary'))),
      ('no check',     exercises(stub, answer)),
      ('no check',     exercises(stub, answer, check)),
      ('no solution',  exercises(stub, check)),
      ('folded',       exercises(stub, check, py(source(answer)))),
      ('folded',       exercises(stub, check, py(source(answer)[19:], folded=True))),
      ('not called',   exercises(stub, check, py('#| code-fold: true\ndef f(x): return x+1', folded=True))),
      ('no words',     exercises(stub, py('def check_f(f): f(1)'), answer)),
      ('no words',     exercises(stub, py('def check_f(f):\n    assert f(1)'), answer)),
      ('the stub',     exercises(stub, check, py('#| code-fold: true\ndef g(x): return x+1\ncheck_f(g)', folded=True))))
def exercises_can_be_checked(house):
    "At least three stubs; behind each a check that says in words what is wrong, then the folded solution, which calls it."
    for k, cells in house.lessons.items():
        heads = [i for i, c in enumerate(cells) if re.match(r'# \d+\. your turn', source(c))]
        end = next((i for i, c in enumerate(cells) if re.search('^## Summary', source(c), re.M)), len(cells))
        if len(heads)<3: yield f'{k}: {len(heads)} exercises, three are the least'
        for i, j in zip(heads, [*heads[1:], end]):
            yield from (f'{k}, {source(cells[i])[:15]!r}: {o}' for o in flaws(cells[i:j]))

def flaws(cells):
    "What is wrong with one exercise: its stub, its check, its solution."
    texts = [source(c) if c['cell_type']=='code' else '' for c in cells]
    at = next((i for i, c in enumerate(cells) if is_folded(c) or '#| code-fold: true' in texts[i]), None)
    if at is None: return (yield 'there is no solution')
    if not (is_folded(cells[at]) and '#| code-fold: true' in texts[at]): yield 'the solution is not folded in both ways'
    before, after = '\n'.join(texts[:at]), '\n'.join(texts[at:])
    checks = {o.name: o for o in nodes(before, ast.FunctionDef) if o.name.startswith('check_')}
    if not checks: return (yield 'no check stands before the solution')
    asserts = [o for f in checks.values() for o in ast.walk(f) if isinstance(o, ast.Assert)]
    if not any(o.msg for o in asserts): yield 'no words in the check'
    calls = [o for o in nodes(after, ast.Call) if getattr(o.func, 'id', '') in checks]
    if not calls: return (yield 'the check is not called')
    asked = {o.id for c in calls for a in c.args for o in ast.walk(a) if isinstance(o, ast.Name)}
    if not asked & {*defined(texts[0])}: yield 'the check is called on no name that the stub defines'

def shows(**output): return lesson(py('1', outputs=[output]))

@rule(('no outputs', lesson(py('1', outputs=()))),
      ('an error',   shows(output_type='error', ename='E', evalue='', traceback=[])),
      ('machine',    shows(output_type='stream', text='/home/somebody/x')),
      ('widget',     shows(output_type='display_data', data={'application/vnd.jupyter.widget-view+json': {}})),
      ('bytes',      House(lessons={'00_core': []}, sizes={'00_core': 500_000})))
def outputs_are_true(house):
    "Outputs of a whole run, nobody's paths, nothing that needs its kernel, and not too much of it."
    for k, cells in house.lessons.items():
        outs = [o for c in cells for o in c.get('outputs', [])]
        text = json.dumps(outs)
        if not outs: yield f'{k}: no outputs: python nbs/run.py {k}.ipynb'
        if any(o['output_type']=='error' for o in outs): yield f'{k}: an error that nobody expected'
        if m := re.search(r'/(root|home|tmp|work|Users)/\w+', text): yield f'{k}: {m[0]}, a path of somebody\'s machine'
        if 'widget-view' in text: yield f'{k}: a widget'
        if house.sizes[k]>=500_000: yield f'{k}: {house.sizes[k]:,} bytes'

# --- modules

def lines(n, text='x = 1'): return f'{text}\n'*n

@rule(('lines is 301',        module(lines(301))),
      ('columns is 121',      module('"""Core."""\nx = ' + '1'*117)),
      ('function is 26 (f)',  module('def f(\n    x,\n):\n    "F."\n' + lines(26, '    x = 1'))),
      ('function is 26 (g)',  module('class A:\n    def g(self):\n' + lines(26, '        x = 1'))),
      ('cell is 46 (abc)',    module('# %% ../nbs/00_core.ipynb #abc\n' + lines(46))),
      ('triples',             module('a, b, c = 1, 2, 3')),
      ('triples',             module('x = (a, b), *c = y')),
      ('1 triples in 200',    module(lines(199) + 'self.a, self.b, self.c = x')))
def modules_are_small(house):
    "The limits on what is counted. Functions count without signature and docstring."
    every = {k: count(text) for k, text in house.modules.items()}
    for k, o in every.items():
        name = dict(function=f' ({o.longest})', cell=f' ({o.mark})')
        over = {what: n for what, most in limits.items() if (n := getattr(o, what))>most}
        yield from (f'{k}: {what} is {n}{name.get(what, "")}, {limits[what]} at most' for what, n in over.items())
    total, n = sum(o.lines for o in every.values()), sum(o.triples for o in every.values())
    where = ', '.join(f'{k} {o.triples}' for k, o in every.items() if o.triples)
    if 1000*n>=most_triples*total>0: yield f'{n} triples in {total} lines, not below {most_triples} in 1,000: {where}'

def toured(doc, code='def f(): ...'): return module(f'"""{doc}"""\n__all__ = ["f"]\n{code}')

@rule(('no example',  toured('Core.\n\n- `f`')),
      ('not name f',  toured('Core: ff and `ff`.\n\n```python\nff()\n```')),
      ('is not run',  lesson(py('#| exportd\n#| slow\nx = 1'))),
      ('is not run',  lesson(py('#| exportd\n#| eval: false\nx = 1'))))
def modules_begin_with_a_tour(house):
    "The docstring of a module names all that it defines for others, and has an example, which its lesson runs."
    for k, text in house.modules.items():
        doc = tour(text)
        if not re.search(r'^```python\n.+^```', doc, re.M | re.S): yield f'{k}: the docstring has no example'
        lists = [o.value for o in nodes(text, ast.Assign) if ast.unparse(o.targets[0])=='__all__']
        given = {name for o in lists for name in ast.literal_eval(o)} & {*defined(text)}
        told = {*re.findall(r'`(\w+)', doc)}
        if given-told: yield f"{k}: the docstring does not name {', '.join(sorted(given-told))}"
    for k, cells in house.lessons.items():
        for o in map(source, cells):
            if o.startswith('#| exportd') and '#| ' in o[2:]: yield f'{k}: the example is not run: {o.splitlines()[1]}'

@rule(('no docstring', module('def f()->int: return 1')),
      ('no docstring', module('class A: ...')),
      ('no docstring', module('class A:\n    "A."\n    def f(self): ...')),
      ('f has no doc', module('@patch\ndef f(self:A): ...')),
      ('B.g has',      module('class A:\n  def f(self): ...\nclass B(A):\n  def f(self): ...\n  def g(self): ...')),
      ('parameter x',  module('def f(x):\n    "F."')),
      ('parameter x',  module('def f(x, y): # of both\n    "F."')),
      ('parameter x',  module('class A:\n    "A."\n    def __init__(self, x): ...')),
      ('parameter y',  module('def f(x:int, y=1):\n    "F."')),
      ('parameter args', module('def f(\n    *args,\n):\n    "F."')),
      ('returns',      module('def f():\n    "F."\n    for i in a: return i')),
      ('returns',      module('class A:\n    "A."\n    @property\n    def f(self):\n        "F."\n        return 1')))
def public_names_are_documented(house):
    "A docstring for each; a type or a comment for every parameter, and for the result where there is one."
    classes = {o.name: o for text in house.modules.values() for o in nodes(text, ast.ClassDef)}
    for k, text in house.modules.items():
        commented = comments(text)
        for name, o in public(text, classes):
            if not ast.get_docstring(o) and not name.endswith('__init__'): yield f'{k}: {name} has no docstring'
            if isinstance(o, ast.ClassDef): continue
            yield from (f'{k}: {name}: {what} has neither type nor comment' for what in untold(o, commented))

@rule(('no summary', module('import os')), ('no summary', module('"""\n"""')),
      ('TODO', module('"""Core."""\nx = 1 # TODO')), ('FIXME', module('"""Core."""\n# FIXME')))
def modules_say_what_they_are(house):
    "The first line is the summary of the lesson, which nbdev writes there; and there are no leftovers."
    for k, text in house.modules.items():
        if not re.match(r'""".*\w', text): yield f'{k}: no summary in the first line'
        yield from (f'{k}: {o}' for o in re.findall(r'\b(?:TODO|FIXME)\b.*', text))

doubles = {('core', 'collate'),                              # looks for them, and replaces them
           ('metrics', 'add'), ('metrics', 'reduce'),        # the sums of an epoch, on the CPU
           ('spreadsheet', 'to_xlsx')}                       # a workbook computes in double precision

@rule(('in f', module('def f(x): return x.to(torch.float64)')),
      ('in g', module('class A:\n    def g(self, x): return x.double()')),
      ('outside', module('kind = torch.double')), ('outside', module('x = np.float64(1)')))
def doubles_have_a_reason(house):
    "Some devices have no float64. Where it is used all the same, a table above says why; a test below watches batches."
    for k, text in house.modules.items():
        found = [name for name, part in parts(text) if re.search(r'\bfloat64\b|\.double\b', part)]
        yield from (f'{k}: float64 in {o or "lines outside"}' for o in found if (k[3:], o) not in doubles)

network = re.compile(r'load_dataset\(|\bHfApi\b|hf_hub|huggingface_hub|\b(urllib|requests|httpx|socket)\b|from_url')

@rule(('in f', module('def f(): return requests.get("x")')), ('outside', module('import urllib.request')),
      ('in _fetch', module('def _fetch(): load_dataset("x")')),
      ('in g', House(modules={'03_sources': 'def _fetch(): load_dataset("x")\ndef g(): load_dataset("x")'})))
def one_function_speaks_to_the_network(house):
    for k, text in house.modules.items():
        found = [name for name, part in parts(text) if network.search(part)]
        yield from (f'{k}: the network in {o or "lines outside"}' for o in found if (k[3:], o)!=('sources', '_fetch'))

# --- the map, the README, the configuration

def maps(text, *modules):
    "A house with these modules, and a package with this docstring."
    return House(modules=dict.fromkeys(modules, ''), texts={'miniai/__init__.py': f'"""A map.\n\n{text}\n"""'})
first = '- 00 Ground: `core`\n'

@rule(('00_plot is not', maps(first, '00_core', '02_plot')),
      ('00_old is only', maps('- 00 Ground: `core`, `old`', '00_core')),
      ('00_cnn is only', maps('- 00 Ground: `cnn`', '10_cnn')),
      ('order',          maps('- 00 Ground: `plot`, `core`', '00_core', '02_plot')),
      ('The loop',       maps(first + '- 20 Loops: `events`', '00_core', '21_events')),
      ('docstring',      House(modules={'00_core': ''}, texts={'miniai/__init__.py': 'x = 1'})))
def the_map_shows_each_module(house):
    "The docstring of the package: decades in order, and under each its modules."
    if not house.modules: return
    text, found = ast.get_docstring(ast.parse(house.texts.get('miniai/__init__.py', ''))), []
    if text is None: return (yield 'map: the package has no docstring')
    for decade, name, modules in re.findall(r'^- (\d\d) (.+?): (.+)$', text, re.M):
        if name!=decades.get(decade): yield f'map: the decade {decade} is called {decades.get(decade)!r}, not {name!r}'
        found += [f'{decade}_{o}' for o in re.findall(r'`(\w+)`', modules)]
    wanted = [f'{k[0]}0_{k[3:]}' for k in house.modules]
    yield from (f'map: {o} is not there' for o in wanted if o not in found)
    yield from (f'map: {o} is only there' for o in found if o not in wanted)
    if sorted(found)==sorted(wanted) and found!=wanted: yield f'map: the order is not that of the lessons: {found}'

commands = "pip install -e '.[dev]' && miniai-train", "pip install -e '.[dev]' && nbdev-test && pytest"
row = '\n| | **Convolutions** | |\n| 10 | [cnn](nbs/10_cnn.ipynb) | build |\n'
def readme(row=row, commands=commands, ci="-e '.[dev]' nbdev-test && pytest"):
    texts = {'README.md': '\n'.join([*commands, row]), '.ci/run': ci}
    return House(lessons={'10_cnn': []}, texts=texts, files={'nbs/10_cnn.ipynb'})

@rule(('10_cnn is not', readme('')),
      ('10_cnn is not', readme(row.replace('| 10 |', '| 11 |'))),
      ('10_cnn is not', readme(row.replace('Convolutions', 'Ground'))),
      ('no file LICENSE', readme(row + '[License](LICENSE)')),
      ('no file nbs/09_old', readme(row + '| 09 | [old](nbs/09_old.ipynb) | x |')),
      ('miniai-train',  readme(commands=commands[1:])),
      ('nbdev-test',    readme(commands=commands[:1])),
      ('.ci/run',       readme(ci='pytest')))
def the_readme_is_in_step(house):
    "Each lesson in the table, under its decade; links that lead to files; the two commands, which CI runs."
    if not house.lessons or 'README.md' not in house.texts: return
    text, decade, rows = house.texts['README.md'], '', {}
    for line in text.splitlines():
        if m := re.fullmatch(r'\| \| \*\*(.+)\*\* \| \|', line): decade = m[1]
        elif m := re.match(r'\| (\d\d \| \[\w+\])\(nbs/(\w+)\.ipynb\) \| .+ \|$', line): rows[m[2]] = m[1], decade
    wanted = {k: (f'{k[:2]} | [{k[3:]}]', decades.get(k[0]+'0')) for k in house.lessons}
    missing = [k for k in wanted if rows.get(k)!=wanted[k]]
    yield from (f'README.md: {k} is not in the table of lessons, under its decade' for k in missing)
    links = re.findall(r'\]\(((?!http)[^)#]+)\)', text)
    yield from (f'README.md: no file {o}' for o in links if o not in house.files)
    yield from (f'README.md: no command {o}' for o in commands if o not in text)
    wanted = "-e '.[dev]'", 'nbdev-test && pytest'
    yield from (f'.ci/run: no {o}, as in the README' for o in wanted if o not in house.texts.get('.ci/run', ''))

ini  = '[package]\nauthor = we\nrequirements =\n    torch\n[extras]\ndev =\n    nbdev\n'
toml = '[project]\nname = "miniai"\ndynamic = ["version"]\n'
def configured(ini=ini, toml=toml): return House(texts={'settings.ini': ini, 'pyproject.toml': toml})

@rule(('torch',   configured(toml=toml + 'dependencies = ["torch"]')),
      ('author',  configured(toml=toml + 'authors = "we"')),
      ('dynamic', configured(toml='[project]\nname = "a"')),
      ('nbdev',   configured(ini.replace('nbdev', 'pytest'))),
      ('version', configured(ini + '[a]\nversion = 1')))
def configuration_stands_in_one_place(house):
    "Requirements, author and extras in settings.ini, all else in pyproject.toml, the version in the package."
    if 'settings.ini' not in house.texts: return
    cfg, toml = ConfigParser(delimiters=['=']), house.texts['pyproject.toml']
    cfg.read_string(house.texts['settings.ini'])
    listed = [re.split('[<>=]', o)[0] for o in cfg['package']['requirements'].split()]
    yield from (f'pyproject.toml: {o} stands in settings.ini' for o in listed if re.search(rf'["\']{o}\b', toml))
    if 'nbdev' not in cfg['extras']['dev']: yield 'settings.ini: the extra dev does not bring nbdev'
    if re.search('^authors? *=', toml, re.M): yield 'pyproject.toml: author stands in settings.ini'
    if not re.search('^dynamic *=', toml, re.M): yield 'pyproject.toml: dynamic is missing, setup.py hands nothing on'
    versions = [o for o in cfg.sections() if cfg.has_option(o, 'version')]
    if versions: yield f'settings.ini: the version, in {versions}, stands in miniai/__init__.py'

# --- the tests

house = House.read(root)
def ids(o): return getattr(o, '__name__', o if isinstance(o, str) else '')

@pytest.mark.parametrize('keeps', rules, ids=ids)
def test_the_house_keeps(keeps):
    complaints = list(keeps(house))
    assert not complaints, '\n' + '\n'.join(complaints)

@pytest.mark.parametrize('keeps, word, bad', breaks, ids=ids)
def test_the_rule_can_fail(keeps, word, bad):
    complaints = list(keeps(bad))
    assert any(word in o for o in complaints), f'{complaints} without {word!r}'

def test_each_rule_has_an_example_that_breaks_it(): assert {f for f, *_ in breaks}=={*rules}

def test_rules_do_not_complain_of_what_is_right():
    "A house with two small lessons."
    refers = md('See the lesson *plot*, and lesson 15 of the course.')
    plot = [*whole[:3], *three, *whole[3:]]
    core = [*whole[:2], py('#| default_exp core'), refers, *plot[2:]]
    size = 'class A:\n  "A."\n  def f(\n    self,\n    x, # an image\n  ): # its size\n    "F."\n    return x.size\n'
    shown = '```python\nA()\n```"""\n'
    modules = {'00_core': f'"""Core.\n\n- `A`s\n\n{shown}__all__ = ["A"]\n{size}', '02_plot': f'"""Plot.\n\n{shown}from .core import A'}
    texts = {'miniai/__init__.py': f'"""A map.\n\n{first.strip()}, `plot`\n"""'}
    good = House({'00_core': core, '02_plot': plot}, modules, texts, sizes={'00_core': 1, '02_plot': 1})
    assert not [o for keeps in rules for o in keeps(good)]

def test_the_counts_are_printed():
    text = table(house.modules)
    print(f'\n{text}')
    assert all(k in text for k in house.modules)

def test_the_whole_house_is_read():
    generated = {o.stem for o in (root/'miniai').glob('*.py')} - {'__init__', '_modidx'}
    assert {k[3:] for k in house.modules}==generated
    assert {'README.md', 'CHANGELOG.md', 'tests/conftest.py', 'benchmarks/report.py', '.ci/run'} <= house.texts.keys()

def test_example_of_the_package_runs():
    import miniai
    assert doctest.testmod(miniai)==(0, 3)

def test_example_of_the_readme_runs():
    example, = re.findall(r'```python\n(.+?)```', house.texts['README.md'], re.S)
    space = {}
    exec(example, space)
    model, x = space['learn'].model.eval(), space['data'].valid[0]/255
    with torch.no_grad(): assert ((model(x)-x)**2).mean() < 0.5*((x.mean(0)-x)**2).mean()

# --- modules in step, notebooks clean

def run(*cmd, cwd):
    tool = Path(sys.executable).parent/cmd[0]
    return subprocess.run([str(tool), *cmd[1:]], cwd=cwd, check=True, capture_output=True)

@pytest.fixture(scope='module')
def copy(tmp_path_factory):
    "A copy of the project without its modules, exported and cleaned anew."
    folder = tmp_path_factory.mktemp('copy')
    shutil.copytree(root/'nbs', folder/'nbs')
    for o in ('pyproject.toml', 'settings.ini', 'setup.py'): shutil.copy(root/o, folder/o)
    (folder/'miniai').mkdir()
    shutil.copy(root/'miniai/__init__.py', folder/'miniai')
    run('nbdev-export', cwd=folder)
    run('nbdev-clean', cwd=folder)
    return folder

def differ(a, b):
    "Modules and notebooks that are not the same in two projects, or are in one of them only."
    paths = {p.relative_to(o) for o in (a, b) for g in ('miniai/*.py', 'nbs/*.ipynb') for p in o.glob(g)}
    def content(path): return path.read_bytes() if path.exists() else None
    return sorted(str(p) for p in paths if content(a/p)!=content(b/p))

def test_modules_are_in_step_and_notebooks_clean(copy):
    assert not differ(root, copy), 'nbdev-export writes modules, nbdev-clean cleans notebooks'

def test_a_change_by_hand_is_seen(copy, tmp_path):
    other = shutil.copytree(copy, tmp_path/'other')
    for o in ('miniai/core.py', 'nbs/00_core.ipynb', 'miniai/stale.py'): (other/o).open('a').write('\n')
    assert differ(copy, other)==['miniai/core.py', 'miniai/stale.py', 'nbs/00_core.ipynb']

# --- batches without float64, checks that refuse a stub

class NoDoubles(TorchDispatchMode):
    "While `on`, refuses every operation that makes a tensor of float64."
    on = False
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        double = [o for o in tree_leaves(out) if isinstance(o, torch.Tensor) and o.dtype==torch.float64]
        if self.on and double: raise TypeError(f'{func} makes float64')
        return out

class WatchEpochCB(Callback):
    "Switches a mode on while the batches of an epoch come; what is summed up after them is on the CPU."
    order = -1000
    def __init__(self, mode): self.mode = mode
    def before_epoch(self, learn): self.mode.on = True
    def after_epoch(self, learn): self.mode.on = False
    def cleanup_epoch(self, learn): self.mode.on = False

class DoubleCB(Callback):
    def after_predict(self, learn): learn.preds.double()

def fit_watched(images, *extra):
    "Two epochs of 40 images from bytes to the step, with every callback that has to do with batches."
    set_seed(0)
    x, y = torch.randint(0, 256, (40, 1, 28, 28), dtype=torch.uint8), torch.arange(40)%10
    dls = DataLoaders.from_tensors((x, y), (x, y), bs=16)
    cbs = [DeviceCB('cpu'), OneCycleCB(), GradClipCB(1.), EMACB(), NaNStopCB(), RecorderCB(lr=lambda o: 1.), *extra]
    cbs += [ReconstructCB(), MetricsCB(MSE(), PSNR())] if images else [TrainCB(), MetricsCB(Accuracy(), TopK(2))]
    model, loss = (ConvAutoencoder(latent=2), F.mse_loss) if images else (simple_cnn(), F.cross_entropy)
    with NoDoubles() as mode: Learner(model, dls, loss, 1e-3, cbs, optim.AdamW).fit(2, cbs=[WatchEpochCB(mode)])

@pytest.mark.parametrize('images', [True, False], ids=['images', 'classes'])
def test_no_double_on_the_way_of_a_batch(images): fit_watched(images)

def test_a_double_on_the_way_is_seen():
    with pytest.raises(TypeError, match='makes float64'): fit_watched(False, DoubleCB())

def run_lesson(path, *cells):
    "Write a notebook of these cells and run it by nbs/run.py; its cells as they are afterwards."
    spec = spec_from_file_location('run', root/'nbs/run.py')
    spec.loader.exec_module(runner := module_from_spec(spec))
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(o) for o in cells]), path)
    runner.run(path, [])
    return nbformat.read(path, 4).cells

def test_a_check_that_refuses_the_stub_is_kept(tmp_path):
    cells = run_lesson(tmp_path/'00_core.ipynb', *map(source, (stub, check, answer)), 'f(1)')
    assert len(cells)==4 and cells[-1].outputs[0].data['text/plain']=='2'            # and the solution stands

def test_a_check_that_accepts_the_stub_is_refused(tmp_path):
    with pytest.raises(Exception, match='accepts the stub'):
        run_lesson(tmp_path/'00_core.ipynb', source(stub), 'def check_f(f): f(1)', source(answer), 'f(1)')
    assert not nbformat.read(tmp_path/'00_core.ipynb', 4).cells[-1].outputs          # the notebook is as it was

if __name__=='__main__': print(table(house.modules))
