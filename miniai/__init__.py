"""Convolutional autoencoders from first principles: lessons that are also a library

The map, by decades. Each module is a lesson, the notebook in `nbs/` that it comes from. Imports run downwards only,
so a module needs nothing that stands below it.

- 00 Ground: `core`, `plot`, `sources`, `datasets`, `training`
- 10 Convolutions: `conv`, `im2col`, `layout`, `cnn`, `windows`, `receptive`, `summary`
- 20 The loop: `metrics`, `events`, `progress`, `learner`, `speed`, `safety`, `look`
- 30 Deep networks: `init`, `sgd`, `augment`, `accel`, `callbacks`
- 40 Autoencoders: `autoencoder`
- 60 Your own: `cli`
- 90 Extras: `cells`, `spreadsheet`

An example:

    >>> from miniai.autoencoder import ConvAutoencoder
    >>> from miniai.cnn import n_params
    >>> n_params(ConvAutoencoder(latent=8))
    1884681

Modules:

- `miniai.accel`: Half the bits for the products, all of them for the sums: when that is safe, and when it is faster.
- `miniai.augment`: A metric is one number. To understand a network, look at what it guessed, for each image.
- `miniai.autoencoder`: Squeeze an image into a few numbers, and grow it back, by a growing layer that is equal to the usual one, and on a CPU faster.
- `miniai.callbacks`: Every callback of the package, in one place, and many of them at work together.
- `miniai.cells`: In a spreadsheet every number is a cell. Which formulas make a convolution of them, a pool, a dense layer, a batch norm?
- `miniai.cli`: Choose a dataset and a code size; get a trained autoencoder, its pictures, its history, and two yardsticks.
- `miniai.cnn`: A network of convolutions by hand: counted, drawn, trained, taken apart, shifted, and compared, one change at a time.
- `miniai.conv`: A few weights slide over an image and ask the same question at each place: on paper, as a loop, and as a layer.
- `miniai.core`: The few lines that every other lesson leans on: make a run repeatable, move a batch to whatever device there is, and say clearly what went wrong.
- `miniai.datasets`: Two ways from images to batches: row by row, for every kind of data; and all images in memory, on the device.
- `miniai.events`: The Learner begins on one screen with everything built in. Then metrics, callbacks and cancel exceptions take it apart, until nobody has to edit it again.
- `miniai.im2col`: Copy each window into a column, and a convolution is one matrix product. Why that is fast, what it costs, and what flows back.
- `miniai.init`: A batch is changed on the device, all images at once, before the model sees it: shifted, or normalised.
- `miniai.layout`: The same numbers in another order: with the images of a batch side by side in memory, a network of thin convolutions takes a fraction of the time.
- `miniai.learner`: A training loop that you never edit again: callbacks do the work, exceptions stop it, looking leaves no trace, and errors say where they came from.
- `miniai.look`: What does the model see, and what comes out of it? A true fit is stopped at an event, shown, and undone.
- `miniai.metrics`: How well is it doing? A Metric sums up over batches, weighs them rightly, and does not make the GPU wait.
- `miniai.plot`: Show one image or a hundred, as pictures or as numbers, whatever form they come in; show what a model made of them; and draw a loss curve.
- `miniai.progress`: Exact numbers for each epoch without making the device wait, and a bar that knows whether anybody is watching.
- `miniai.receptive`: Deep in a network, one unit lights up. Which pixels could it see, and which of them counted?
- `miniai.safety`: End a run at the first loss that is no number and say who made it; stop when nothing improves; keep the best weights in a file; judge by an average of the weights.
- `miniai.sgd`: The rate of a step may rise and fall, its gradient may be cut or gathered from many batches; and whatever happens can be recorded.
- `miniai.sources`: Read the images yourself, check what can be checked, and decode them only once.
- `miniai.speed`: A stopwatch at every event tells what a fit waits for; then a compiler, which makes the model itself faster where that is possible.
- `miniai.spreadsheet`: A trained network in which every number is a cell: change a pixel, and watch the prediction move.
- `miniai.summary`: One picture goes in. We count every multiplication on its way, let hooks do the counting for any model, and ask whether the clock agrees.
- `miniai.training`: All that `fit` does, written out: minibatches, loss, step, validation; and what each line is for, shown by leaving it out.
- `miniai.windows`: Each unit of a layer reads a few units of the layer before. We write down which ones, for every kind of layer, and follow whole chains of layers."""

__version__ = "0.2.0.dev0"
