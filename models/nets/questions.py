"""Questions that an image answers: what is shown, what is wanted, and how far an answer is from it. For models that complete and translate.

| task | shown | wanted |
|---|---|---|
| `inpaint` | an image with a hole, and where that is | the image |
| `colourise` | its luminance | the image |
| `upscale` | the image, `factor` times smaller | the image |
| `pairs` | the data's `image` | the data's `target` |

The last three are pairs of the data (`models.data.clauses`): the rule of the task makes them where the data are none. Holes are drawn anew
in every step. What is shown comes to the size of what is wanted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from models.base import Batch, DataSpec, Field, LatentModel
from models.errors import UserError
from models.nets.holes import Kind, draw_holes

Task = Literal["inpaint", "colourise", "upscale", "pairs"]


@dataclass(frozen=True)
class Question:
    """Of a batch.

    Attributes:
        shown: (B, K, H, W), at the size of what is wanted; for `inpaint` the last channel is 1 in the hole.
        wanted: (B, C, H, W) in [-1, 1].
        hole: (B, 1, H, W), 1 where an answer is asked for; None: everywhere.
    """

    shown: Tensor
    wanted: Tensor
    hole: Tensor | None = None

    def error(self, answer: Tensor, squared: bool = False) -> Tensor:
        """Mean absolute (or squared) difference, over the hole where there is one: (B, C, H, W) in units of [-1, 1] -> (B,), float32."""
        apart = answer.float() - self.wanted
        apart = apart.square() if squared else apart.abs()
        if self.hole is None:
            return apart.flatten(1).mean(1)
        return (apart * self.hole).flatten(1).sum(1) / self.values

    @property
    def values(self) -> Tensor:
        """How many numbers are wanted of each image: (B,), or for all ()."""
        channels = self.wanted.shape[1]
        return torch.tensor(float(self.wanted[0].numel())) if self.hole is None else self.hole.flatten(1).sum(1) * channels

    def with_answer(self, answer: Tensor) -> Tensor:
        """What a discriminator sees, the question and an answer (B, C, H, W), with what was known put back: (B, K + C, H, W)."""
        whole = answer if self.hole is None else torch.lerp(self.wanted, answer.float(), self.hole)
        return torch.cat([self.shown, whole], 1)

    def whole(self, answer: Tensor) -> Tensor:
        """The answer as an image in [-1, 1], with what was known put back."""
        image = answer.float()
        return (image if self.hole is None else torch.where(self.hole > 0, image, self.wanted)).clamp(-1, 1)


class Asking:
    """How a task asks.

    Args:
        task: see above. holes: for `inpaint`, which ones are drawn. spec: of the data.

    Attributes:
        given: the field of the images that are shown; wanted: of those that are the answers.
        seen: the spec of what a network sees, at the size of what is wanted.
        answered: of that with an answer, as a discriminator sees it (`Question.with_answer`).
        needs: the batch keys.

    Raises UserError where the data cannot be asked so.
    """

    def __init__(self, task: Task, holes: Kind, spec: DataSpec) -> None:
        self.task, self.holes = task, holes
        self.given = spec.fields["image"]
        self.wanted = self.given if task == "inpaint" else spec.fields.get("target", self.given)
        self.needs = frozenset({"image"}) if task == "inpaint" else frozenset({"image", "target"})
        if task == "colourise" and self.wanted.shape[0] != 3:
            raise UserError("grey images have no colours to learn", "--task colourise", "choose data in colour, or another --task")
        self.size: tuple[int, int] = self.wanted.shape[1:]  # type: ignore[assignment]
        self.seen = DataSpec.of_images(self.given.shape[0] + (task == "inpaint"), *self.size)
        self.answered = DataSpec.of_images(self.seen.channels + self.wanted.shape[0], *self.size)

    def of(self, batch: Batch) -> Question:
        """The questions of a batch; holes come from the step's random stream."""
        if self.task != "inpaint":
            return Question(self.shown(batch.image), batch.target)
        return self.with_hole(batch.image, draw_holes(self.holes, len(batch), self.size, batch.device))

    def shown(self, image: Tensor) -> Tensor:
        """Images as a network sees them: (B, K, h, w) -> (B, K, H, W)."""
        if image.shape[2:] == self.size:
            return image
        return F.interpolate(image, self.size, mode="bilinear", align_corners=False, antialias=image.shape[2] > self.size[0])

    def with_hole(self, image: Tensor, hole: Tensor) -> Question:
        """Images whose answer is known but for the hole: (B, C, H, W) and (B, 1, H, W), 1 in the hole. Inside, they are of no account."""
        known = torch.where(hole > 0, torch.zeros((), device=image.device), image)
        return Question(torch.cat([known, hole.to(known.dtype)], 1), image, hole)


class Answering(LatentModel):
    """A model that answers the questions of its options `task`, `mask` and `factor`: it completes images with holes, or translates images.

    A subclass gives the size of one answer's noise, and says in `answer` how it answers.
    """

    def __init__(self, config: Any, spec: DataSpec, noise: int) -> None:
        super().__init__(config, spec)
        self.asking = Asking(config.task, config.mask, spec)
        self.needs = self.asking.needs
        if config.task == "inpaint":
            self.holes, self.completion_noise = config.mask, (noise,)
        else:
            self.translation_noise = (noise,)

    @staticmethod
    def pairs_by(config: Any) -> str:
        return {"colourise": "input=grey", "upscale": f"input=small:{config.factor}"}.get(config.task, "")

    def gives(self, capability: str) -> Field:
        return self.asking.wanted if capability == "translate" else self.asking.given

    def answer(self, shown: Tensor, noise: Tensor) -> Tensor:
        """What is shown, (B, K, H, W) as in a `Question`, and N(0, I) noise -> answers (B, C, H, W), which may leave [-1, 1] a little."""
        raise NotImplementedError

    def translate(self, image: Tensor, noise: Tensor) -> Tensor:
        """Images (B, C, h, w) and noise -> their answers (B, C', H, W) in [-1, 1]."""
        return self.answer(self.asking.shown(image), noise).float().clamp(-1, 1)

    def complete(self, image: Tensor, mask: Tensor, noise: Tensor) -> Tensor:
        """Images (B, C, H, W), masks (B, 1, H, W), 1 in the hole, and noise -> whole images in [-1, 1]."""
        question = self.asking.with_hole(image, mask)
        return question.whole(self.answer(question.shown, noise))
