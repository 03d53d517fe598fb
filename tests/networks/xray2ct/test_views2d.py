"""The pyramid: attention between views, and scales of the detector."""

import pytest
import torch

from networks.xray2ct.toys import exams, furthest, orbit
from trivox.errors import GeometryError
from trivox.networks.xray2ct.views2d import (
    CrossViewTransformerAttention,
    MultiScaleFeaturePyramid,
    rays_at,
    waves,
)
from trivox.projection.xrays import Xrays


def pyramid(attention=1):
    torch.manual_seed(0)
    return MultiScaleFeaturePyramid(
        (8, 16, 24, 32), heads=4, attention=attention
    ).eval()


def attention_input(views=3, seed=0):
    torch.manual_seed(seed)
    geometry = orbit(*(50.0 * view for view in range(views)))
    maps = torch.randn(2, views, 32, 4, 4)
    xrays = Xrays.of(torch.zeros(2, views, *geometry.detector), geometry)
    rays = rays_at(xrays, 8).expand(2, -1, -1, -1, -1)
    return maps, rays, xrays.present


def between_views():
    torch.manual_seed(1)
    return CrossViewTransformerAttention(32, heads=4).eval()


def test_a_pyramid_has_the_features_of_four_scales_of_every_view():
    maps = pyramid()(exams(orbit(0, 40, 90), batch=2))
    assert [tuple(x.shape) for x in maps] == [
        (2, 3, 8, 32, 32),
        (2, 3, 16, 16, 16),
        (2, 3, 24, 8, 8),
        (2, 3, 32, 4, 4),
    ]


def test_permuting_views_with_their_rays_permutes_the_result():
    block = between_views()
    maps, rays, present = attention_input()
    order = [2, 0, 1]
    permuted = block(maps[:, order], rays[:, order], present)
    assert furthest(permuted, block(maps, rays, present)[:, order]) < 1e-5


def test_every_view_attends_to_every_other():
    block = between_views()
    maps, rays, present = attention_input(views=4)
    before = block(maps, rays, present)
    for view in range(4):
        changed = maps.clone()
        changed[:, view] += torch.randn(32, 1, 1)
        moved = (block(changed, rays, present) - before).abs().amax(dim=(0, 2, 3, 4))
        assert moved.min() > 1e-4, f"view {view} is not seen by all"


def test_rays_tell_tokens_apart():
    block = between_views()
    maps, rays, present = attention_input()
    assert (
        furthest(block(maps, rays, present), block(maps, rays[:, [1, 0, 2]], present))
        > 1e-3
    )
    near = torch.tensor([0.0, 0.6, 0.8, 0.0, 0.0, 0.0])
    assert (waves(near) - waves(near + 0.02)).abs().max() > 0.2


def test_absent_views_are_seen_by_none():
    block = between_views()
    maps, rays, present = attention_input()
    present[:, 1] = False
    left = [0, 2]
    alone = block(maps[:, left], rays[:, left], present[:, left])
    assert furthest(block(maps, rays, present)[:, left], alone) < 1e-5


def test_an_exam_without_any_view_stays_finite_and_disturbs_no_other():
    block = between_views()
    maps, rays, present = attention_input()
    alone = block(maps[:1], rays[:1], present[:1])
    present[1] = False
    together = block(maps, rays, present)
    assert together.isfinite().all()
    assert furthest(together[:1], alone) < 1e-5


def test_attention_equals_the_softmax_formula():
    torch.manual_seed(0)
    block = CrossViewTransformerAttention(32, heads=1)
    maps, rays, present = attention_input()
    tokens, places = (x.movedim(2, -1).flatten(1, 3) for x in (maps, rays))
    normed = block.norm(tokens)
    query, key = block.to_query_key(normed + block.place(waves(places))).chunk(
        2, dim=-1
    )
    weights = (query @ key.transpose(-1, -2) / 32**0.5).softmax(dim=-1)
    tokens = tokens + block.project(weights @ block.to_value(normed))
    tokens = tokens + block.feed(block.feed_norm(tokens))
    expected = tokens.reshape(2, 3, 4, 4, 32).movedim(-1, 2)
    torch.testing.assert_close(
        block(maps, rays, present), expected, rtol=1e-4, atol=1e-5
    )


def test_images_are_scaled_by_a_constant_and_not_by_their_own_range():
    xrays = exams(orbit(0, 90))
    double = Xrays(xrays.images * 2, xrays.geometry, xrays.present)
    assert furthest(pyramid()(xrays)[0], pyramid()(double)[0]) > 1e-2


def test_without_attention_a_view_is_seen_alone_and_with_it_all_together():
    xrays = exams(orbit(0, 90))
    other = Xrays(
        xrays.images * torch.tensor([1.0, 2.0])[:, None, None],
        xrays.geometry,
        xrays.present,
    )
    alone = pyramid(attention=0)
    together = pyramid(attention=1)
    assert furthest(alone(xrays)[0][:, 0], alone(other)[0][:, 0]) == 0
    assert furthest(together(xrays)[0][:, 0], together(other)[0][:, 0]) > 1e-5


def test_detectors_that_cannot_be_halved_three_times_are_refused():
    geometry = orbit(0, detector=(20, 32))
    with pytest.raises(GeometryError, match=r"20 x 32 pixels.*multiples of 8"):
        pyramid()(Xrays.of(torch.zeros(1, 1, 20, 32), geometry))
