"""The authors' step in Keras, as their released code has it: one image a second figure for each batch, on standard output.

Run by `tests.benchmarks.authors` in an environment of its own, which has TensorFlow: predict a fake, train D on real pairs and
on fake ones, train the generator through a D that stands still. The networks are those of the paper's text.
"""

import os
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from keras import layers

SIZE, START = 256, keras.initializers.RandomNormal(0, 0.02)


def generator() -> keras.Model:
    """Return the U-Net of 54.4 million parameters."""
    x = seen = keras.Input((SIZE, SIZE, 1))
    skips = []
    for level, width in enumerate((64, 128, 256, 512, 512, 512, 512)):
        x = layers.Conv2D(width, 4, 2, "same", kernel_initializer=START)(x)
        x = layers.BatchNormalization()(x) if level else x
        x = layers.LeakyReLU(negative_slope=0.2)(x)
        skips.append(x)
    x = layers.ReLU()(layers.Conv2D(512, 4, 2, "same", kernel_initializer=START)(x))
    for level, width in enumerate((512, 512, 512, 512, 256, 128, 64)):
        x = layers.BatchNormalization()(layers.Conv2DTranspose(width, 4, 2, "same", kernel_initializer=START)(x))
        x = layers.Dropout(0.5)(x) if level < 3 else x
        x = layers.ReLU()(layers.Concatenate()([x, skips[-1 - level]]))
    return keras.Model(seen, layers.Conv2DTranspose(2, 4, 2, "same", activation="tanh", kernel_initializer=START)(x))


def discriminator() -> keras.Model:
    """Return the PatchGAN of 2.8 million parameters."""
    lightness, chroma = keras.Input((SIZE, SIZE, 1)), keras.Input((SIZE, SIZE, 2))
    x = layers.Concatenate()([lightness, chroma])
    for level, (width, stride) in enumerate(((64, 2), (128, 2), (256, 2), (512, 1))):
        x = layers.Conv2D(width, 4, stride, "same", kernel_initializer=START)(x)
        x = layers.BatchNormalization()(x) if level else x
        x = layers.LeakyReLU(negative_slope=0.2)(x)
    patches = layers.Conv2D(1, 4, padding="same", activation="sigmoid", kernel_initializer=START)(x)
    return keras.Model([lightness, chroma], patches)


def main() -> None:
    """Print a batch size and its images/s for each batch size that was asked for."""
    unet, critic = generator(), discriminator()
    critic.compile(loss="binary_crossentropy", optimizer=keras.optimizers.Adam(2e-4, beta_1=0.5), loss_weights=[0.5])
    critic.trainable = False
    seen = keras.Input((SIZE, SIZE, 1))
    fake = unet(seen)
    both = keras.Model(seen, [critic([seen, fake]), fake])
    both.compile(loss=["binary_crossentropy", "mae"], optimizer=keras.optimizers.Adam(2e-4, beta_1=0.5), loss_weights=[1, 100])
    critic.trainable = True
    random = np.random.default_rng(0)
    for batch in map(int, sys.argv[1:]):
        lightness = random.standard_normal((batch, SIZE, SIZE, 1)).astype(np.float32)
        chroma = np.tanh(random.standard_normal((batch, SIZE, SIZE, 2))).astype(np.float32)
        real = np.ones((batch, *critic.output_shape[1:]), dtype=np.float32)

        def step(lightness: np.ndarray = lightness, chroma: np.ndarray = chroma, real: np.ndarray = real) -> None:
            made = unet.predict(lightness, verbose=0)
            critic.train_on_batch([lightness, chroma], real)
            critic.train_on_batch([lightness, made], 0 * real)
            both.train_on_batch(lightness, [real, chroma])

        step()
        steps = max(2, 8 // batch)
        started = time.perf_counter()
        for _ in range(steps):
            step()
        print(batch, batch * steps / (time.perf_counter() - started), flush=True)


if __name__ == "__main__":
    main()
