"""Deep learning small enough to read in a week: each module is a lesson, the notebook in `nbs/` that it comes from.

The map, by decades. Imports run downwards only, so a module needs nothing that stands below it.

00 Ground
    core         repeat a run, move a batch to any device, write errors that teach
    plot         images and curves, as pictures and as numbers
    sources      read image files safely, and only once; three sets: train, valid, test
    datasets     loaders: row by row for everything, or all images in memory
    training     `fit`, the training loop by hand
10 Convolutions
    conv         a convolution as a loop, and as a layer with its norm and activation
    im2col       a convolution as one matrix product, forwards and backwards
    layout       the batch innermost in memory: thin convolutions several times faster
    cnn          a network of convolutions, and the count of its parameters
    windows      what each layer reads of the one before; one walk along a chain of layers
    receptive    which pixels a unit sees, and which of them count
    summary      what a network costs, layer by layer
20 The loop
    metrics      exact means over uneven batches
    events       callbacks, and the exceptions that stop a batch, an epoch or a fit
    progress     history, numbers and live curves
    learner      `Learner`: a training loop that nobody has to edit
    speed        where the time of a fit goes, and a compiler
    safety       stop early, keep the best weights, average them, catch the first NaN
    look         batches and results of a true fit, without a trace of it
30 Deep networks
    init         batches changed on the device, before the model sees them
    sgd          schedules of the rate, a record of anything, gradients cut or gathered
    augment      every prediction of a run, to look at
    accel        half of the bits for the products, all of them for the sums
    callbacks    the door: every callback of all lessons, from one place
40 Autoencoders
    autoencoder  `ConvAutoencoder`, and the fast layer that grows an image back
60 Your own
    cli          `miniai-train`, and `load_model` for what it saved
90 Extras
    cells        a layer as formulas that a spreadsheet computes
    spreadsheet  a trained network as a workbook full of formulas

>>> from miniai.autoencoder import ConvAutoencoder
>>> from miniai.cnn import n_params
>>> n_params(ConvAutoencoder(latent=8))
1884681
"""

__version__ = "0.2.0.dev0"
