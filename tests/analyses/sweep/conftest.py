"""What the sweep's tests share."""

import pytest

from hooked_vit import HookedViT


@pytest.fixture
def images_passed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of images of each forward pass of any model, as they happen."""
    seen: list[int] = []
    forward = HookedViT.forward

    def counted(self, input, *args, **kwargs):
        seen.append(len(input))
        return forward(self, input, *args, **kwargs)

    monkeypatch.setattr(HookedViT, "forward", counted)
    return seen
