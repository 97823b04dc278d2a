"""The loss on validation text during training, which changes nothing about the training."""

import numpy as np
import torch

from posexp.config.sections import Split
from posexp.data.sampler import SequenceSampler
from posexp.errors import Misuse
from posexp.evaluation.scoring import Scorer
from posexp.training.prepare import Training

TIMES = 10  # validations of a run, by default
# Tokens of the sample as a share of those of training: ten forward passes then take 2.6 % of the time of training, if
# the backward pass takes twice as long as the forward pass.
SHARE = 1 / 128
MOST_TOKENS = 65_536  # of the sample: more would make the loss of long runs hardly more precise


class Validation:
    """The validation of one run, in all its processes: each scores a part of the same sequences.

    The sequences are drawn from the validation split as those of training are from theirs, and are the same for every
    seed and step. `why_not` says why there is no validation, "" if there is.
    """

    def __init__(self, training: Training):
        self.training, self.why_not = training, ""
        config, ranks = training.config, training.ranks
        every = config.train.validate_every
        self.every = max(1, -(-config.train.steps // TIMES)) if every is None else every
        length, size = config.train.length, ranks.place.size
        count = round(min(config.train.tokens * SHARE, MOST_TOKENS)) // length
        count = max(1, count // size) * size  # every process scores as many
        try:
            self.tokens = training.store.split(Split.valid)
            sampler = SequenceSampler(self.tokens, length, config.data.cross_documents)
        except Misuse as error:
            self.every, self.why_not = 0, str(error) if self.every else ""
            return
        start_B = sampler.starts(0, 0, count)[ranks.place.rank :: size]
        self.spans_B3 = np.stack((start_B, start_B + 1, start_B + length + 1), axis=1)
        self.batch_tokens = config.train.batch_tokens // config.train.accumulate // size  # fits into memory

    def due(self, done: int) -> bool:
        """Return whether the loss is measured after `done` steps: every so many, and after the last."""
        return self.every > 0 and (done % self.every == 0 or done == self.training.config.train.steps)

    def loss(self) -> float:
        """Return the mean loss in nats per token. Every process must call this."""
        training = self.training
        torch.manual_seed(0)  # the loop seeds every step anew; a scheme that draws positions draws the same each time
        score = Scorer(training.model, self.batch_tokens, training.device, training.precision)
        own = score(self.tokens.ids, self.spans_B3).nll.mean(dtype=np.float64)
        return training.ranks.mean(torch.tensor(own, device=training.device)).item()
