"""The rules of the house. Each takes a `House` and returns complaints; beside it stands an example that breaks it, so that we know it can fail.

`python tests/test_house.py` prints what is counted in each module."""
import ast, doctest, io, json, re, shutil, subprocess, sys, tokenize
from configparser import ConfigParser
from dataclasses import dataclass, field
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

from miniai.autoencoder import ConvAutoencoder
from miniai.callbacks import EMACB, GradClipCB, NaNStopCB, OneCycleCB, RecorderCB
from miniai.cnn import simple_cnn
from miniai.core import set_seed
from miniai.datasets import DataLoaders
from miniai.events import Callback
from miniai.learner import DeviceCB, Learner, ReconstructCB, TrainCB
from miniai.metrics import MSE, PSNR, Accuracy, TopK
from miniai.progress import MetricsCB

root = Path(__file__).parents[1]
decades = {'00': 'Ground', '10': 'Convolutions', '20': 'The loop', '30': 'Deep networks', '40': 'Autoencoders', '50': 'What they are for',
           '60': 'Your own', '90': 'Extras'}

def source(cell): return ''.join(cell['source'])
def code(cells): return '\n'.join(source(c) for c in cells if c['cell_type']=='code')
default_exp = re.compile(r'^#\|\s*default_exp\s+(\w+)', re.M)

@dataclass
class House:
    "What the rules look at."
    lessons:dict = field(default_factory=dict)    # '14_receptive_field' → its cells
    modules:dict = field(default_factory=dict)    # '14_receptive' → source: the lesson's number, the module's name; in this order
    texts:dict = field(default_factory=dict)      # path → text of all else that is written by hand
    files:frozenset = frozenset()                 # paths that are there
    sizes:dict = field(default_factory=dict)      # '14_receptive_field' → bytes of the notebook

    @classmethod
    def read(cls, root):
        paths = sorted((root/'nbs').glob('*.ipynb'))
        lessons = {o.stem: json.loads(o.read_text(encoding='utf-8'))['cells'] for o in paths}
        names = [(k, m[1]) for k, cells in lessons.items() if (m := default_exp.search(code(cells)))]
        globs = '*.md *.ini *.toml Makefile .ci/run miniai/__init__.py nbs/*.py tests/*.py benchmarks/*.py benchmarks/*.md'.split()
        texts = [o for g in globs for o in sorted(root.glob(g)) if o.name!='test_house.py']            # this file is full of bad examples
        folders = '.', 'nbs', 'miniai', 'benchmarks'
        return cls(lessons, {f'{k[:2]}_{name}': (root/'miniai'/f'{name}.py').read_text(encoding='utf-8') for k, name in names},
                   {o.relative_to(root).as_posix(): o.read_text(encoding='utf-8') for o in texts},
                   frozenset(o.relative_to(root).as_posix() for d in folders for o in (root/d).iterdir()),
                   {o.stem: o.stat().st_size for o in paths})

rules, breaks = [], []            # functions; and (function, a word of the complaint, a house that it must complain about with this word)

def rule(*bad):
    "Register a rule, with pairs of a word and a house that breaks it."
    def register(f):
        rules.append(f)
        breaks.extend((f, word, house) for word, house in bad)
        return f
    return register

def md(text): return dict(cell_type='markdown', source=text, metadata={})
def py(text, folded=False, outputs=(dict(output_type='stream', text='1'),)):
    return dict(cell_type='code', source=text, metadata={'jupyter': {'source_hidden': True}} if folded else {}, outputs=list(outputs))
def lesson(*cells): return House(lessons={'00_core': list(cells)}, sizes={'00_core': 0})
def module(text): return House(modules={'00_core': text})

# --- imports

def imports(text):
    "Each import from this package, wherever it stands: (module, name, alias); the name is None where the module itself is imported."
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom):
            path = (node.module or '').split('.')
            if not node.level and path[0]!='miniai': continue
            inside = path if node.level else path[1:] or ['']
            for a in node.names:
                if inside[0]: yield '.'*(node.level-1) + inside[0], a.name, None          # from .core import x
                else: yield a.name, None, a.asname or a.name                              # from . import core
        elif isinstance(node, ast.Import):
            for a in node.names:
                whole, _, name = a.name.partition('.')
                if whole=='miniai': yield name, None, a.asname or a.name                  # import miniai.core
        elif isinstance(node, ast.Call) and re.search(r'\b(import_module|__import__)$', ast.unparse(node.func)):
            yield ast.unparse(node), None, ''

@rule(('later',        House(modules={'00_core': 'from .plot import show', '02_plot': 'def show(): ...'})),
      ('later',        House(modules={'00_core': 'def f():\n    from . import plot', '02_plot': ''})),
      ('later',        House(modules={'00_core': 'import miniai.plot as p', '02_plot': ''})),
      ('later',        House(modules={'00_core': 'from miniai.plot import show', '02_plot': ''})),
      ('later',        House(modules={'40_autoencoder': 'from .folders import x', '60_folders': 'x = 1'})),     # 50 to 90 stay out of 00 to 40
      ('itself',       House(modules={'00_core': 'from .core import x\nx = 1'})),
      ('no module',    House(modules={'00_core': 'from .old import x'})),
      ('no module',    House(modules={'00_core': 'from miniai import *'})),
      ('no module',    House(modules={'00_core': 'import miniai'})),
      ('no module',    House(modules={'00_core': 'm = importlib.import_module(".plot", "miniai")', '02_plot': ''})))
def imports_run_downwards(house):
    "A module imports from lessons before its own. So nothing in the decades 00 to 40 can import what is built on them, 50 to 90."
    number = {k[3:]: k[:2] for k in house.modules}
    for k, text in house.modules.items():
        for mod in {o[0] for o in imports(text)}:
            if mod not in number: yield f'{k} imports {mod!r}, which is no module of a lesson'
            elif number[mod]>=k[:2]: yield f'{k} imports ' + ('itself' if mod==k[3:] else f'the later lesson {mod}')

def defined(text):
    "Names that a module defines at its top level; what `_all_` hands on is not among them."
    for node in ast.parse(text).body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)): yield node.name
        targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        yield from (o.id for t in targets for o in ast.walk(t) if isinstance(o, ast.Name))

handed_on = {'21_events': 'class Callback: ...', '23_learner': 'from .events import Callback\n_all_ = ["Callback"]'}

@rule(('Callback', House(modules=handed_on | {'24_speed': 'from .learner import Callback'})),
      ('Callback', House(modules=handed_on | {'24_speed': 'def f():\n    from miniai.learner import Callback as C'})),
      ('Callback', House(modules=handed_on | {'24_speed': 'from . import learner as le\nclass A(le.Callback): ...'})),
      ('Callback', House(modules=handed_on | {'24_speed': 'import miniai.learner\nclass A(miniai.learner.Callback): ...'})),
      ('torch',    House(modules={'00_core': 'import torch', '02_plot': 'from .core import torch'})))
def names_come_from_their_owner(house):
    "Inside the package a name is imported from the module that defines it, never from one that hands it on."
    owned = {k[3:]: set(defined(text)) for k, text in house.modules.items()}
    for k, text in house.modules.items():
        used = [o for o in imports(text) if o[0] in owned]
        alias = {a: mod for mod, name, a in used if name is None}
        attributes = (o for o in ast.walk(ast.parse(text)) if isinstance(o, ast.Attribute))
        names = {(mod, name) for mod, name, _ in used if name} | {(alias[v], o.attr) for o in attributes if (v := ast.unparse(o.value)) in alias}
        for mod, name in sorted(names):
            if name not in owned[mod]:
                owners = [m for m, o in owned.items() if name in o] or ['no module of ours']
                yield f'{k} takes {name} from {mod}, it is defined in {" and ".join(owners)}'

@rule(('star', module('def f():\n    from os import path\nfrom os.path import *')),
      ('star', lesson(py('from miniai.core import *'))))
def no_star_imports(house):
    for k, text in [*house.modules.items(), *((k, code(cells)) for k, cells in house.lessons.items())]:
        if m := re.search(r'^\s*from\s+\S+\s+import\s+\*', text, re.M): yield f'{k}: a star import: {m[0].strip()}'

# --- lessons: names, references, parts, exercises, outputs

@rule(('name', House(lessons={'11b_events': []})), ('name', House(lessons={'1_core': []})), ('name', House(lessons={'00_Core': []})),
      ('name', House(lessons={'core': []})), ('decade', House(lessons={'70_core': []})),
      ('number', House(lessons={'00_core': [], '00_plot': []})),
      ('core twice', House(lessons={'00_core': [py('#| default_exp core')], '02_plot': [py('#| default_exp core')]})))
def lessons_are_numbered_in_decades(house):
    "Two digits, an underscore, a name in lower case, and no letter behind the number; one module a notebook at most."
    for k in house.lessons:
        if not re.fullmatch(r'\d\d(_[a-z][a-z0-9]*)+', k): yield f'{k}: the name is not two digits, an underscore and words in lower case'
        elif k[0]+'0' not in decades: yield f'{k}: the decade {k[0]}0 has no name'
    for numbers in [[k[:2] for k in house.lessons]]:
        yield from (f'the number {n} twice' for n in sorted({n for n in numbers if numbers.count(n)>1}))
    names = [m[1] for cells in house.lessons.values() if (m := default_exp.search(code(cells)))]
    yield from (f'the module {n} twice: two notebooks would overwrite each other' for n in sorted({n for n in names if names.count(n)>1}))

listed    = re.compile(r"\blessons?\s+(?:\*\w+\*(?:'s)?(?:,?\s+(?:and\s+|or\s+|to\s+)?(?:from\s+)?(?=\*))?)+", re.I)
by_number = re.compile(r"\blessons?\s+\(?\d+[a-z]?\b", re.I)
needs     = re.compile(r'^\*\*What you need to know\.\*\*.*', re.M)
notebook  = re.compile(r'\b(\w+)\.ipynb\b')

core = {'00_core': [md('# Core')]}
def says(text): return House(lessons={'00_core': [], '02_plot': [md(text)]})

@rule(('nowhere', says('as in the lesson *nowhere*')), ('nowhere', says('The lessons *core*, *plot* and *nowhere* show it')),
      ('nowhere', says('the lessons *core* to *nowhere*')), ('nowhere', House(lessons={'00_core': [py('x = 1  # see the lesson *nowhere*')]})),
      ('nowhere', House(texts={'README.md': 'the lesson *nowhere*'})), ('nowhere', House(texts={'tests/test_a.py': '"of the lesson\n*nowhere*"'})),
      ('lesson 05', says('as in lesson 05')), ('Lessons 11b', says('Lessons 11b and 12')), ('lesson 07', House(texts={'a.py': '# lesson 07'})),
      ('04', says('**What you need to know.** The lesson *core*, and from 04 `fit`.')), ('nowhere', says('**What you need to know.** From *nowhere* a lot.')),
      ('11b_events.ipynb', House(texts={'CONTRIBUTING.md': 'nbs/11b_events.ipynb'})))
def references_lead_somewhere(house):
    "A lesson is named (`the lesson *core*`), and is there. Numbers are for fast.ai's lessons only, in a line that says so."
    names = {k[3:] for k in house.lessons}
    texts = house.texts | {f'{k}, cell {i}': source(c) for k, cells in house.lessons.items() for i, c in enumerate(cells)}
    for where, text in texts.items():
        told = [*(m[0] for m in listed.finditer(text)), *(m[0] for m in needs.finditer(text))]
        for name in sorted({n for o in told for n in re.findall(r'\*(\w+)\*', o)} - names): yield f'{where}: there is no lesson {name}'
        for line in text.splitlines():
            m = by_number.search(line)
            if m and not re.search(r'fast\.ai|course', line, re.I): yield f'{where}: {m[0]}, by number: {line.strip()[:80]}'
        for o in needs.findall(text): yield from (f'{where}: {n}, by number: {o[:80]}' for n in re.findall(r'(?<![\w.])\d\d[a-z]?\b(?![.,×%])', o))
        yield from (f'{where}: there is no {o}.ipynb' for o in notebook.findall(text) if re.match(r'\d', o) and o not in house.lessons)

parts = '## Exercises', '## Summary', '## Sources'
whole = [md('# Core\n\n> A line.'), *map(md, parts)]

@rule(('title', lesson(md('# Core'), *map(md, parts))), *((o, lesson(*[c for c in whole if o not in c['source']])) for o in parts),
      ('What you need', lesson(*whole)))
def notebooks_are_lessons(house):
    for k, cells in house.lessons.items():
        prose = [source(c) for c in cells if c['cell_type']=='markdown'] or ['']
        if not re.match(r'# .+\n\n> .+', prose[0]): yield f'{k}: the first cell is no title with a one-line summary'
        for o in parts:
            if not any(re.search(f'^{o}', p, re.M) for p in prose): yield f'{k}: no {o}'
        for o in ('What you will build', 'What you need to know', 'How long it takes'):
            if not any(f'**{o}' in p for p in prose[:4]): yield f'{k}: {o} is not said at the beginning'

stub    = py('# 1. your turn\ndef f(x): ...')
check   = py('def check_f(f):\n    assert f(1)==2, "f adds one"')
answer  = py('#| code-fold: true\ndef f(x): return x+1\ncheck_f(f)', folded=True)
def exercises(*cells): return lesson(md('## Exercises'), *cells, *[stub, check, answer]*2, md('## Summary'))

@rule(('fewer', lesson(md('## Exercises'), stub, check, answer, stub, check, answer, md('## Summary'))),
      ('no check', exercises(stub, answer)), ('no check', exercises(stub, answer, check)),
      ('no solution', exercises(stub, check)), ('folded', exercises(stub, check, py(answer['source']))),
      ('folded', exercises(stub, check, py('def f(x): return x+1\ncheck_f(f)', folded=True))),
      ('not called', exercises(stub, check, py('#| code-fold: true\ndef f(x): return x+1', folded=True))),
      ('says nothing', exercises(stub, py('def check_f(f): f(1)'), answer)), ('says nothing', exercises(stub, py('def check_f(f):\n    assert f(1)'), answer)),
      ('stub', exercises(stub, check, py('#| code-fold: true\ndef g(x): return x+1\ncheck_f(g)', folded=True))))
def exercises_can_be_checked(house):
    "At least three stubs; behind each a check that says in words what is wrong, and then the solution, folded, with a call of the check on a name of the stub."
    for k, cells in house.lessons.items():
        texts = [source(c) for c in cells]
        first, last = (next((i for i, t in enumerate(texts) if re.search(f'^## {o}', t, re.M)), len(cells)) for o in ('Exercises', 'Summary'))
        starts = [i for i in range(first, last) if re.match(r'# \d+\. your turn', texts[i])]
        if len(starts)<3: yield f'{k}: {len(starts)} exercises, fewer than three'
        for i, end in zip(starts, [*starts[1:], last]): yield from (f'{k}, {texts[i].splitlines()[0]}: {o}' for o in flaws(cells[i:end]))

def flaws(cells):
    "What is wrong with one exercise: its stub, its check, its solution."
    texts = [source(c) if c['cell_type']=='code' else '' for c in cells]
    answers = [i for i, (c, t) in enumerate(zip(cells, texts)) if c['metadata'].get('jupyter', {}).get('source_hidden') or '#| code-fold: true' in t]
    if not answers: return (yield 'there is no solution')
    at = answers[0]
    if not (cells[at]['metadata'].get('jupyter') and '#| code-fold: true' in texts[at]): yield 'the solution is not folded in both ways'
    checks = [o for t in texts[:at] for o in ast.parse(t).body if isinstance(o, ast.FunctionDef) and o.name.startswith('check_')]
    if not checks: return (yield 'no check stands before the solution')
    if not any(o.msg for c in checks for o in ast.walk(c) if isinstance(o, ast.Assert)): yield 'the check says nothing: it needs asserts with words'
    calls = [o for t in texts[at:] for o in ast.walk(ast.parse(t)) if isinstance(o, ast.Call) and getattr(o.func, 'id', '') in {c.name for c in checks}]
    if not calls: return (yield 'the check is not called')
    asked = {o.id for c in calls for a in c.args for o in ast.walk(a) if isinstance(o, ast.Name)}
    if not asked & {*defined(texts[0])}: yield f'the check is called on {sorted(asked)}, which the stub does not define'

def shows(*outs): return lesson(py('1', outputs=outs))

@rule(('no outputs', lesson(py('1', outputs=()))), ('error', shows(dict(output_type='error', ename='E', evalue='', traceback=[]))),
      ('path', shows(dict(output_type='stream', text='/home/somebody/x'))), ('widget', shows(dict(data={'application/vnd.jupyter.widget-view+json': {}}))),
      ('bytes', House(lessons={'00_core': []}, sizes={'00_core': 500_000})))
def outputs_are_true(house):
    for k, cells in house.lessons.items():
        outs = [o for c in cells for o in c.get('outputs', [])]
        if not outs: yield f'{k}: no outputs: python nbs/run.py {k}.ipynb'
        if any(o.get('output_type')=='error' for o in outs): yield f'{k}: shows an error that nobody expected'
        if m := re.search(r'/(root|home|tmp|work|Users)/\w+', json.dumps(outs)): yield f'{k}: a path of somebody\'s machine, {m[0]}'
        if 'widget-view' in json.dumps(outs): yield f'{k}: a widget, which shows nothing without its kernel'
        if house.sizes[k]>=500_000: yield f'{k}: {house.sizes[k]:,} bytes'

# --- modules: what is counted

limits = dict(lines=300, columns=120, function=25, cell=45)              # each module; of triples there are fewer than 5 in 1,000 lines of all modules

def tokens(text):
    "Tokens that a reader meets: no comments, docstrings or white space."
    docs = {d.lineno for o in ast.walk(ast.parse(text)) if (d := docstring(o))}
    silent = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENCODING, tokenize.ENDMARKER}
    for t in tokenize.generate_tokens(io.StringIO(text).readline):
        if t.type not in silent and not (t.type==tokenize.STRING and t.start[0] in docs): yield t

def docstring(node):
    "The statement that is the docstring of a module, class or function, or None."
    if not isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) or ast.get_docstring(node) is None: return None
    return node.body[0]

def n_targets(o): return sum(map(n_targets, o.elts)) if isinstance(o, (ast.Tuple, ast.List)) else 1

def triples(text):
    "Assignments of three or more things at once, in line numbers. Targets of loops are no assignments."
    return [o.lineno for o in ast.walk(ast.parse(text)) if isinstance(o, ast.Assign) and max(map(n_targets, o.targets))>=3]

def body(f):
    "Lines of a function without its signature and docstring."
    rest = f.body[1:] if docstring(f) else f.body
    return f.end_lineno - rest[0].lineno + 1 if rest else 0

def functions(text): return {o.name: body(o) for o in ast.walk(ast.parse(text)) if isinstance(o, ast.FunctionDef)}

def exported(text):
    "Lines of each exported cell, by the line of its mark; nbdev's own part is left out."
    cells = re.split(r'^# %% (?=\.\.)(.*)\n', text, flags=re.M)[1:]
    return {mark.split('#')[-1]: len(lines.strip('\n').splitlines()) for mark, lines in zip(cells[::2], cells[1::2])}

def wide(text):
    "Lines of which the reader sees all; the summary above and nbdev's lists are wrapped elsewhere."
    return [o for o in text.splitlines()[1:] if not o.startswith(('__all__', '           '))] or ['']

def counts(text):
    "What is counted in a module."
    seen, fs, cells = list(tokens(text)), functions(text) or {'': 0}, exported(text) or {'': 0}
    longest, cell = max(fs, key=fs.get), max(cells, key=cells.get)
    return dict(lines=len(text.splitlines()), columns=max(map(len, wide(text))), density=len(seen)/max(1, len({t.start[0] for t in seen})),
                triples=len(triples(text)), function=fs[longest], longest=longest, cell=cells[cell], mark=cell)

def table(modules):
    "The counts of all modules, as text."
    rows = [f'{"":16}{"lines":>6}{"columns":>9}{"tokens a line":>15}{"triples":>9}{"cell":>6}{"function":>10}']
    every = {k: counts(text) for k, text in modules.items()}
    for k, o in every.items():
        over = ''.join(f'  {w} > {n}' for w, n in limits.items() if o[w]>n)
        rows.append(f'{k:16}{o["lines"]:6}{o["columns"]:9}{o["density"]:15.1f}{o["triples"]:9}{o["cell"]:6}{o["function"]:10}  {o["longest"]:24}{over}')
    lines, n = (sum(o[w] for o in every.values()) for w in ('lines', 'triples'))
    return '\n'.join([*rows, f'{"all":16}{lines:6}{"":24}{n:9}   {1000*n/max(1, lines):.1f} triples in 1,000 lines'])

def lines(n, text='x = 1\n'): return text*n

@rule(('lines 301', module(lines(301))), ('columns 121', module('"""Core."""\nx = ' + '1'*117)), ('function 26 (f)', module('def f(\n    x,\n):\n    "F."\n' + lines(26, '    x = 1\n'))),
      ('function 26 (g)', module('class A:\n    def g(self):\n' + lines(26, '        x = 1\n'))),
      ('cell 46', module('# %% ../nbs/00_core.ipynb #abc\n' + lines(46))), ('triples', module('a, b, c = 1, 2, 3\n')),
      ('triples', module('(a, b), *c = x = 1, 2, 3\n')), ('triples', module(lines(4, 'self.a, self.b, self.c = 1, 2, 3\n') + lines(200) + 'a, b = b, a\na, (b, c) = x')))
def modules_are_small(house):
    "The limits on what is counted."
    every = {k: counts(text) for k, text in house.modules.items()}
    for k, o in every.items():
        for what, most in limits.items():
            which = dict(function=f' ({o["longest"]})', cell=f' (#{o["mark"]})').get(what, '')
            if o[what]>most: yield f'{k}: {what} {o[what]}{which}, at most {most}'
    n, total = sum(o['triples'] for o in every.values()), sum(o['lines'] for o in every.values())
    if n and n>=total*5/1000: yield f'triples: {n} in {total:,} lines, {1000*n/total:.1f} in 1,000; below 5 is allowed: ' + ', '.join(f'{k} {o["triples"]}' for k, o in every.items() if o['triples'])

# --- modules: what they say of themselves

same = re.compile(r'(before|after|cleanup)_\w+|predict|get_loss|backward|step|zero_grad|forward|extra_repr')     # one meaning everywhere

def methods(cls): return [o for o in cls.body if isinstance(o, ast.FunctionDef)]

def inherited(cls, classes):
    "Names of the methods of the bases of a class, as far as these are ours."
    bases = [classes[name] for o in cls.bases if (name := ast.unparse(o)) in classes]
    return {name for b in bases for name in {o.name for o in methods(b)} | inherited(b, classes)}

def public(text, classes):
    "Public functions and classes of a module, and public methods that say something new; as (name, node)."
    for o in ast.parse(text).body:
        if not isinstance(o, (ast.FunctionDef, ast.ClassDef)) or o.name.startswith('_'): continue
        yield o.name, o
        if isinstance(o, ast.FunctionDef): continue
        told = inherited(o, classes) - {'__init__'}
        for f in methods(o):
            open_ = f.name=='__init__' or not f.name.startswith('_')
            if open_ and f.name not in told and not same.fullmatch(f.name): yield f'{o.name}.{f.name}', f

def returns(f):
    "Does a function return something, itself and not by a function inside it?"
    nodes = list(f.body)
    while nodes:
        o = nodes.pop()
        if isinstance(o, ast.Return) and o.value and ast.unparse(o.value)!='None': return True
        if not isinstance(o, (ast.FunctionDef, ast.ClassDef, ast.Lambda)): nodes += ast.iter_child_nodes(o)
    return False

def untold(f, comments):
    "Parameters and the result of a function that have neither type nor comment, as docments reads them."
    a = f.args
    args = [o for o in [*a.posonlyargs, *a.args, a.vararg, *a.kwonlyargs, a.kwarg] if o and o.arg not in ('self', 'cls', 'learn')]
    told = [o.lineno for o in args]
    for o in args:
        if not (o.annotation or (o.lineno in comments and told.count(o.lineno)==1)): yield f'the parameter {o.arg}'
    start = f.body[0].lineno
    close = next((n for n in range(start-1, f.lineno-1, -1) if n in comments and n not in told), None)
    if returns(f) and not (f.returns or close): yield 'what it returns'

@rule(('no docstring', module('def f()->int: return 1')), ('no docstring', module('class A:\n    "A."\n    def f(self): ...')),
      ('no docstring', module('class A: ...')), ('parameter x', module('def f(x):\n    "F."')), ('parameter y', module('def f(x:int, y=1):\n    "F."')),
      ('parameter x', module('def f(x, y): # of two\n    "F."')), ('parameter args', module('def f(\n    *args,\n):\n    "F."')),
      ('returns', module('def f():\n    "F."\n    for i in a: return i')), ('parameter x', module('class A:\n    "A."\n    def __init__(self, x): ...')),
      ('B.g has', module('class A:\n    "A."\n    def f(self)->int:\n        "F."\nclass B(A):\n    "B."\n    def f(self): ...\n    def g(self): ...')),
      ('returns', module('class A:\n    "A."\n    @property\n    def f(self):\n        "F."\n        return 1')))
def public_names_are_documented(house):
    "A docstring for each; a type or a comment for every parameter, and for the result where there is one."
    classes = {o.name: o for text in house.modules.values() for o in ast.parse(text).body if isinstance(o, ast.ClassDef)}
    for k, text in house.modules.items():
        comments = {t.start[0] for t in tokenize.generate_tokens(io.StringIO(text).readline) if t.type==tokenize.COMMENT}
        for name, o in public(text, classes):
            if not ast.get_docstring(o) and not name.endswith('__init__'): yield f'{k}: {name} has no docstring'
            if isinstance(o, ast.FunctionDef): yield from (f'{k}: {name}: {p} has neither type nor comment' for p in untold(o, comments))

@rule(('summary', module('import os')), ('summary', module('"""\n"""')), ('TODO', module('"""Core."""\nx = 1 # TODO')), ('FIXME', module('"""Core."""\n# FIXME')))
def modules_say_what_they_are(house):
    "A summary in the first line, where nbdev writes that of the lesson; and no leftovers."
    for k, text in house.modules.items():
        if not re.match(r'""".*\w', text): yield f'{k}: no summary in the first line'
        yield from (f'{k}: {o}' for o in re.findall(r'\b(?:TODO|FIXME)\b.*', text))

doubles = {('core', 'collate'),                              # finds them to replace them
           ('metrics', 'add'), ('metrics', 'reduce'),        # sums of an epoch, on the CPU
           ('spreadsheet', 'to_xlsx')}                       # a workbook computes in double precision, on the CPU

def owners(text):
    "Each top-level function or method and its source; what stands outside of them belongs to ''."
    for o in ast.parse(text).body:
        fs = [o] if isinstance(o, ast.FunctionDef) else [f for f in getattr(o, 'body', []) if isinstance(f, ast.FunctionDef)]
        yield from ((f.name, ast.unparse(f)) for f in fs)
        if not fs: yield '', ast.unparse(o)

@rule(('f', module('def f(x): return x.to(torch.float64)')), ('g', module('class A:\n    def g(self, x): return x.double()')), ('outside', module('kind = torch.double')),
      ('outside', module('x = np.float64(1)')))
def doubles_stay_on_the_cpu(house):
    "No float64 but in the places of the table: other devices have none."
    for k, text in house.modules.items():
        for name, part in owners(text):
            if re.search(r'\bfloat64\b|\.double\b', part) and (k[3:], name) not in doubles: yield f'{k}: float64 in {name or "lines outside of functions"}'

hub = re.compile(r'load_dataset\(|\bHfApi\b|\bhf_hub|huggingface_hub|\burllib|\brequests\b|\bhttpx\b|\bsocket\b|load_state_dict_from_url')

@rule(('f', module('def f(): return requests.get("x")')), ('outside', module('import urllib.request')), ('_fetch', House(modules={'00_core': 'def _fetch(): load_dataset()'})),
      ('g', House(modules={'03_sources': 'def _fetch(): load_dataset("x")\nclass A:\n    def g(self): load_dataset("x")'})))
def one_function_speaks_to_the_network(house):
    for k, text in house.modules.items():
        for name, part in owners(text):
            if hub.search(part) and (k[3:], name)!=('sources', '_fetch'): yield f'{k}: the network in {name or "lines outside of functions"}, not in sources._fetch'

# --- the map, the README, the configuration

mapped = 'miniai/__init__.py'
def maps(text, *modules): return House(modules=dict.fromkeys(modules, ''), texts={mapped: f'"""A map.\n\n{text}\n"""'})

@rule(('00_plot', maps('00 Ground\n    core   it', '00_core', '00_plot')), ('00_old', maps('00 Ground\n    core   it\n    old   it', '00_core')),
      ('00_cnn', maps('00 Ground\n    cnn   it', '10_cnn')), ('order', maps('00 Ground\n    plot   it\n    core   it', '00_core', '02_plot')),
      ('Grounds', maps('00 Ground\n    core   it\n20 Grounds\n    events   it', '00_core', '21_events')), ('docstring', House(texts={mapped: 'x = 1'})))
def the_map_shows_each_module(house):
    "The docstring of the package: decades in order, and under each its modules with a line of what they give."
    text = ast.get_docstring(ast.parse(house.texts.get(mapped, '"""."""')))
    if text is None: return (yield f'{mapped} has no docstring')
    found, decade = [], ''
    for line in text.splitlines():
        if m := re.fullmatch(r'(\d\d) (.+)', line):
            decade = m[1]
            if decades.get(decade)!=m[2]: yield f'{mapped}: the decade {decade} is called {decades.get(decade)}, not {m[2]}'
        elif m := re.fullmatch(r'    (\w+) +\S.*', line): found.append(f'{decade}_{m[1]}')
    wanted = [f'{k[0]}0_{k[3:]}' for k in house.modules]
    yield from (f'{mapped}: {o} is not on the map' for o in wanted if o not in found)
    yield from (f'{mapped}: {o} is on the map only' for o in found if o not in wanted)
    if sorted(found)==sorted(wanted) and found!=wanted: yield f'{mapped}: another order than that of the lessons: {found}'

install, test = "pip install -e '.[dev]' && miniai-train", "pip install -e '.[dev]' && nbdev-test && pytest"
def readme(text, ci="-e '.[dev]' nbdev-test && pytest"):
    return House(lessons={'10_cnn': []}, texts={'README.md': text, '.ci/run': ci}, files=frozenset({'nbs/10_cnn.ipynb', 'README.md'}))
row = '\n| | **Convolutions** | |\n| 10 | [cnn](nbs/10_cnn.ipynb) | build |\n'

@rule(('10_cnn is not', readme(install + test)), ('10_cnn is not', readme(install + test + row.replace('| 10 |', '| 11 |'))),
      ('10_cnn is not', readme(install + test + row.replace('Convolutions', 'Ground'))), ('LICENSE', readme(install + test + row + '[License](LICENSE)')),
      ('09_old', readme(install + test + row + '| 09 | [old](nbs/09_old.ipynb) | x |')), ('miniai-train', readme(test + row)), ('nbdev-test', readme(install + row)),
      ('.ci/run', readme(install + test + row, ci='pytest')))
def the_readme_is_in_step(house):
    "Each lesson in the table, under its decade; links that lead to files; the two commands, which CI runs."
    if 'README.md' not in house.texts: return
    text, decade, rows = house.texts['README.md'], '', {}
    for line in text.splitlines():
        if m := re.fullmatch(r'\| \| \*\*(.+)\*\* \| \|', line): decade = m[1]
        elif m := re.match(r'\| (\d\d) \| \[(\w+)\]\(nbs/(\w+)\.ipynb\) \| .+ \|$', line): rows[m[3]] = m[1], m[2], decade
    for k in house.lessons:
        if rows.get(k)!=(k[:2], k[3:], decades.get(k[0]+'0')): yield f'README.md: {k} is not in the table of lessons, under its decade'
    yield from (f'README.md: no file {o}' for o in re.findall(r'\]\(((?!http)[^)#]+)\)', text) if o not in house.files)
    yield from (f'README.md: the command {o} is missing' for o in (install, test) if o not in text)
    ci = house.texts.get('.ci/run', '')
    yield from (f'.ci/run: {o} of the README is missing' for o in ("-e '.[dev]'", 'nbdev-test && pytest') if o not in ci)

ini, toml = '[package]\nauthor = we\nrequirements =\n    torch\n[extras]\ndev =\n    nbdev\n', '[project]\nname = "miniai"\ndynamic = ["version"]'
def configured(ini=ini, toml=toml): return House(texts={'settings.ini': ini, 'pyproject.toml': toml})

@rule(('torch', configured(toml=toml + '\ndependencies = ["torch"]')), ('author', configured(toml=toml + '\nauthor = "we"')), ('dynamic', configured(toml='[project]\nname = "a"')),
      ('nbdev', configured(ini=ini.replace('nbdev', 'pytest'))), ('version', configured(ini=ini + '[a]\nversion = 1')))
def configuration_stands_in_one_place(house):
    "Requirements, author and extras in settings.ini, all else in pyproject.toml, the version in the package."
    if 'settings.ini' not in house.texts: return
    cfg, toml = ConfigParser(delimiters=['=']), house.texts['pyproject.toml']
    cfg.read_string(house.texts['settings.ini'])
    needed = cfg['package']['requirements'].split()
    if 'nbdev' not in cfg['extras']['dev']: yield 'settings.ini: the extra dev does not bring nbdev'
    for name in {re.split('[<>=]', o)[0] for o in needed} - {'datasets'}:
        if re.search(rf'["\']{name}\b', toml): yield f'pyproject.toml: {name} is a requirement, these stand in settings.ini'
    if re.search(r'^authors? *=', toml, re.M): yield 'pyproject.toml: author stands in settings.ini'
    if not re.search(r'^dynamic *=', toml, re.M): yield 'pyproject.toml: nothing is dynamic, so setup.py hands nothing on'
    if any(o.has_option(s, 'version') for o in [cfg] for s in cfg.sections()): yield 'settings.ini: the version stands in miniai/__init__.py'

# --- the tests

house = House.read(root)
def named(o): return getattr(o, '__name__', None)

@pytest.mark.parametrize('keeps', rules, ids=named)
def test_the_house_keeps(keeps):
    complaints = list(keeps(house))
    assert not complaints, '\n' + '\n'.join(complaints)

@pytest.mark.parametrize('keeps, word, bad', breaks, ids=named)
def test_the_rule_can_fail(keeps, word, bad):
    complaints = list(keeps(bad))
    assert any(word in o for o in complaints), f'{complaints} without {word}'

def test_each_rule_has_an_example_that_breaks_it(): assert {f for f, *_ in breaks} == {*rules}

def test_the_counts_are_printed():
    text = table(house.modules)
    print(f'\n{text}')
    assert all(k in text for k in house.modules)

def test_the_house_is_read_as_a_whole():
    assert {f'{k[3:]}.py' for k in house.modules} == {o.name for o in (root/'miniai').glob('*.py')} - {'__init__.py', '_modidx.py'}
    assert {'README.md', 'CHANGELOG.md', 'tests/conftest.py', 'benchmarks/report.py', '.ci/run'} <= house.texts.keys()

def test_example_of_the_package_runs():
    import miniai
    assert doctest.testmod(miniai) == (0, 3)

def run(*cmd, cwd): return subprocess.run([str(Path(sys.executable).parent/cmd[0]), *cmd[1:]], cwd=cwd, check=True, capture_output=True)

@pytest.fixture(scope='module')
def copy(tmp_path_factory):
    "A copy of the project without its modules, exported and cleaned anew."
    folder = tmp_path_factory.mktemp('copy')
    for o in ('nbs', 'pyproject.toml', 'settings.ini', 'setup.py'):
        (shutil.copytree if (root/o).is_dir() else shutil.copy)(root/o, folder/o)
    (folder/'miniai').mkdir()
    shutil.copy(root/'miniai/__init__.py', folder/'miniai')
    run('nbdev-export', cwd=folder)
    run('nbdev-clean', cwd=folder)
    return folder

def differ(a, b):
    "Modules and notebooks that are not the same in two projects."
    paths = {p.relative_to(o) for o in (a, b) for g in ('miniai/*.py', 'nbs/*.ipynb') for p in o.glob(g)}
    content = lambda p: p.read_bytes() if p.exists() else None
    return sorted(str(p) for p in paths if content(a/p)!=content(b/p))

def test_modules_are_in_step_and_notebooks_clean(copy):
    assert not differ(root, copy), 'nbdev-export writes modules, nbdev-clean cleans notebooks'

def test_a_change_by_hand_is_seen(copy, tmp_path):
    shutil.copytree(copy, tmp_path/'other')
    (tmp_path/'other/miniai/core.py').open('a').write('\n')
    (tmp_path/'other/miniai/stale.py').write_text('')
    (tmp_path/'other/nbs/00_core.ipynb').open('a').write('\n')
    assert differ(copy, tmp_path/'other') == ['miniai/core.py', 'miniai/stale.py', 'nbs/00_core.ipynb']

class NoDoubles(TorchDispatchMode):
    "While `on`, refuses every operation that makes a tensor of float64."
    on = False
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if self.on and any(isinstance(o, torch.Tensor) and o.dtype==torch.float64 for o in tree_leaves(out)): raise TypeError(f'{func} makes float64')
        return out

class GuardCB(Callback):
    "Switches a mode on from the first event of an epoch to its last batch: what comes then happens on the CPU."
    order = -1000
    def __init__(self, mode): self.mode = mode
    def before_epoch(self, learn): self.mode.on = True
    def after_epoch(self, learn): self.mode.on = False
    def cleanup_epoch(self, learn): self.mode.on = False

class DoubleCB(Callback):
    def after_predict(self, learn): learn.preds.double()

@pytest.mark.parametrize('auto, extra', [(True, []), (False, []), (True, [DoubleCB])], ids=['images', 'classes', 'broken'])
def test_no_double_on_the_way_of_a_batch(auto, extra):
    "Images from bytes to the step, with everything that has to do with batches; a callback that breaks the rule is caught."
    set_seed(0)
    x, y = torch.randint(0, 256, (40, 1, 28, 28), dtype=torch.uint8), torch.arange(40)%10
    dls = DataLoaders.from_tensors((x, y), (x, y), bs=16)
    target = [ReconstructCB(), MetricsCB(MSE(), PSNR())] if auto else [MetricsCB(Accuracy(), TopK(2)), TrainCB()]
    cbs = [*target, DeviceCB('cpu'), OneCycleCB(), GradClipCB(1.), EMACB(), NaNStopCB(), RecorderCB(lr=lambda o: 1.), *(o() for o in extra)]
    model, loss = (ConvAutoencoder(latent=2), F.mse_loss) if auto else (simple_cnn(), F.cross_entropy)
    with NoDoubles() as mode:
        fit = partial(Learner(model, dls, loss, 1e-3, cbs, optim.AdamW).fit, 2, cbs=[GuardCB(mode)])
        if not extra: fit()
        else:
            with pytest.raises(TypeError, match='makes float64'): fit()

@pytest.mark.parametrize('words, passes', [('assert f(1)==2, "one more"', True), ('f(1)', False)])
def test_a_check_that_accepts_the_stub_is_refused(tmp_path, words, passes):
    path, cell = tmp_path/'00_core.ipynb', nbformat.v4.new_code_cell
    cells = [stub['source'], f'def check_f(f): {words}', 'def f(x): return x+1\ncheck_f(f)', 'f(1)']
    nbformat.write(nbformat.v4.new_notebook(cells=[cell(o) for o in cells]), path)
    spec = spec_from_file_location('run', root/'nbs/run.py')
    spec.loader.exec_module(runner := module_from_spec(spec))
    if passes: runner.run(path, [])
    else:
        with pytest.raises(Exception, match='accepts the stub'): runner.run(path, [])
    saved = nbformat.read(path, 4).cells
    assert len(saved)==4 and bool(saved[-1].outputs)==passes

def test_readme_example_runs(capsys):
    example, = re.findall(r'```python\n(.+?)```', (root/'README.md').read_text(encoding='utf-8'), re.S)
    space = {}
    exec(example, space)
    model, (x, _) = space['learn'].model.eval(), space['data'].valid
    x = x/255
    assert ((model(x)-x)**2).mean() < 0.5*((x.mean(0)-x)**2).mean()

if __name__=='__main__': print(table(house.modules))
