"""Adam with a rate of its own for the pretrained layers, built with Keras alone."""

from typing import Any

import keras

from model.networks.efficientnet import is_encoder_layer


class EncoderAdam(keras.optimizers.Adam):
    """Adam whose rate is multiplied by a factor in the layers of an encoder.

    A lower rate there keeps more of what the encoder learned elsewhere, while new layers take the full rate.
    """

    def __init__(self, learning_rate: Any, encoder_factor: float) -> None:
        """Chooses the rates.

        Args:
            learning_rate: a number or a schedule.
            encoder_factor: by which it is multiplied in the encoder.
        """
        super().__init__(learning_rate)
        self._encoder_factor = encoder_factor
        self._in_encoder: list[bool] = []

    def build(self, variables: list[Any]) -> None:
        """Creates the state for the variables of a network."""
        super().build(variables)
        self._in_encoder = [is_encoder_layer(variable.path.split("/")[0]) for variable in variables]

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """One step of one variable."""
        if self._in_encoder[self._get_variable_index(variable)]:
            learning_rate = learning_rate * self._encoder_factor
        super().update_step(gradient, variable, learning_rate)
