"""Traits are attributes of the decorated method, which stays itself."""

from analyses.feature_importance.methods import needs_pixels
from analyses.feature_importance.traits import with_traits


def test_traits_are_attributes_of_the_method() -> None:
    def brightness(model: object, images: object, classes: object, *, start_at_layer: None = None) -> None: ...

    assert not needs_pixels(brightness)
    assert with_traits(needs_pixels=True)(brightness) is brightness
    assert needs_pixels(brightness)
    assert not brightness.class_agnostic
