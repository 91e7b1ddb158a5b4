"Run miniai-train as the README does; put its picture beside RESULTS.md and its figures into README.md and RESULTS.md."
import json, shutil, subprocess, time
from pathlib import Path
from tempfile import TemporaryDirectory

from report import here, recorded, replace, report, results

with TemporaryDirectory() as folder:
    start = time.time()
    subprocess.run(['miniai-train', '--out', f'{folder}/run'], check=True)
    seconds = time.time()-start
    c = json.loads(Path(f'{folder}/run/config.json').read_text())
    shutil.copy(f'{folder}/run/reconstructions.png', results.parent/'reconstructions.png')

table = f'''| test MSE, {c["latent"]} numbers a picture | |
|---|---|
| the mean image | {c["mean_image_mse"]:.4f} |
| PCA | {c["pca_mse"]:.4f} |
| **this autoencoder** | **{c["test_mse"]:.4f}**, {1-c["test_mse"]/c["pca_mse"]:.0%} below PCA |

{c["parameters"]:,} parameters, {c["epochs"]} epochs, {seconds:.0f} seconds on {c["device"]}, start to end, in one run.'''
if results==recorded: replace(here.parent/'README.md', 'default_run', table)
report('default_run', 'miniai-train, as it comes', table)
