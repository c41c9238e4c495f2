"""Which tokens of a row are padding: on one side or on both, holes between tokens, or all of them."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Way:
    """A way to pad a row.

    Args:
        front, back: the number of padding tokens at either end.
        half: the end, `front` or `back`, that has more than half of the row as padding instead.
        step: every step-th token between the ends is masked too, though it is no padding; 0 masks none.
        whole: whether all tokens are masked.
    """

    front: int = 0
    back: int = 0
    half: str = ""
    step: int = 0
    whole: bool = False

    def ends(self, length: int) -> tuple[int, int]:
        """The numbers of padding tokens at either end of a row of this length; one token stays."""
        most = min(length - 1, length // 2 + 1)
        front = most if self.half == "front" else min(self.front, max(0, length - 1))
        back = most if self.half == "back" else min(self.back, max(0, length - 1 - front))
        return front, back


# Every row has padding, while tokenizers pad to the longest row; the last way masks all tokens.
WAYS = (
    Way(half="front"),
    Way(half="back"),
    Way(step=3),
    Way(front=1, step=4),
    Way(back=2, step=3),
    Way(front=2, back=2),
    Way(front=1),
    Way(whole=True),
)


def pad_mixed(ids: torch.Tensor, mask: torch.Tensor, pad: int, turn: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens and their mask, each row padded in the next of `WAYS`.

    Args:
        ids: (…, length); `pad` is put at the ends, and as many of the first tokens are dropped.
        mask: (…, length), or longer by a past, which is padded first.
        pad: the id of the padding token.
        turn: the index of the first row's way.
    """
    ids, mask = ids.clone(), mask.clone()
    rows, masks = ids.view(-1, ids.shape[-1]), mask.view(-1, mask.shape[-1])
    past = masks.shape[-1] - rows.shape[-1]
    for index in range(len(rows)):
        way = WAYS[(index + turn) % len(WAYS)]
        if way.whole:
            masks[index] = 0
            continue
        masks[index] = row_mask(way, masks.shape[-1]).to(masks.dtype)
        front, back = way.ends(masks.shape[-1])
        front, back = max(0, front - past), min(back, rows.shape[-1])
        kept = rows[index, front + back :].clone()
        rows[index] = torch.cat([rows.new_full((front,), pad), kept, rows.new_full((back,), pad)])
    return ids, mask


def row_mask(way: Way, length: int) -> torch.Tensor:
    """The mask of one row that is not masked as a whole."""
    front, back = way.ends(length)
    mask = torch.ones(length, dtype=torch.long)
    if way.step:
        # Keep the first and the last of the tokens: a summary may be read there.
        mask[front + 1 : length - back - 1 : way.step] = 0
    mask[:front] = 0
    mask[length - back :] = 0
    return mask
