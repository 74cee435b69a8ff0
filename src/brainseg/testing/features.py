"""Features, heads and layers under timm's names."""

from itertools import pairwise

import torch
from torch import Tensor, nn

from brainseg.models import EncoderFeatures
from brainseg.testing.rules import Build, expect, expect_equal, images, seeded, trained


def check_features(build: Build) -> None:
    """`forward_intermediates` gives what `feature_info` says, and `indices` choose among it."""
    model, x = trained(build), images(2, 3, 97, 130)
    with torch.no_grad():
        features = model.forward_intermediates(x, intermediates_only=True)
        logits, again = model.forward_intermediates(x)
        expect(torch.equal(logits, model(x)), "logits of forward_intermediates are not those of forward")
        number = len(model.feature_info)
        expect(len(features) == len(again) == number, f"{len(features)} features, feature_info has {number}")
        for feature, info in zip(features, model.feature_info, strict=True):
            wanted = (2, info["num_chs"], *(-(-side // info["reduction"]) for side in (97, 130)))
            expect(tuple(feature.shape) == wanted, f"a feature of shape {tuple(feature.shape)}, feature_info: {wanted}")
            model.get_submodule(info["module"])
        strides = [info["reduction"] for info in model.feature_info]
        expect(all(a < b for a, b in pairwise(strides)), f"features of strides {strides}, expected shallow to deep")
        for indices, some in ((1, features[-1:]), ([0, -1], [features[0], features[-1]])):
            _, chosen = model.forward_intermediates(x, indices=indices)
            same = len(chosen) == len(some) and all(torch.equal(a, b) for a, b in zip(chosen, some, strict=True))
            expect(same, f"indices={indices} choose other features")


def check_features_only(build: Build) -> None:
    """Without what was registered behind the encoder, the encoder works, and every parameter learns."""
    model = trained(build)
    with torch.no_grad():
        expected = model.forward_intermediates(images(), intermediates_only=True)
    encoder = EncoderFeatures(model)
    with torch.no_grad():
        found = encoder(images())
    expect(all(torch.equal(a, b) for a, b in zip(found, expected, strict=True)), "the encoder alone has other features")
    outputs = encoder.train()(images())
    torch.stack([x.square().mean() for x in outputs]).sum().backward()  # type: ignore[no-untyped-call]
    unused = [key for key, parameter in encoder.named_parameters() if parameter.grad is None]
    expect(not unused, f"parameters of the decoder in front of the encoder's last box: {unused[:3]}")


def check_layers(build: Build) -> None:
    """`group_matcher` numbers layers from the image on: the stem is first, the head last."""
    model = seeded(build)
    boxes = [info["module"] for info in model.feature_info]
    for coarse in (False, True):
        layer_of = model.group_matcher(coarse=coarse)
        layers = {key: layer_of(key) for key, _ in model.named_parameters()}
        expect(
            {*layers.values()} == {*range(max(layers.values()) + 1)}, f"layers with gaps: {sorted({*layers.values()})}"
        )
        for stem in model.stems:
            expect(layers[f"{stem}.weight"] == 0, f"the stem {stem} is in layer {layers[f'{stem}.weight']}, not 0")
        for key, layer in layers.items():
            inside = [k for k, box in enumerate(boxes) if key.startswith(f"{box}.")]
            if coarse and inside:
                expect(layer == inside[0], f"{key} is in layer {layer}, and its box is number {inside[0]}")
    classifier = model.get_classifier()
    (head,) = (name for name, module in model.named_modules() if module is classifier)
    last = [layers[f"{head}.{key}"] for key, _ in classifier.named_parameters()]
    expect(all(layer == max(layers.values()) for layer in last), f"the head {head} is in layers {last}, not the last")


def check_classifier(build: Build) -> None:
    """`reset_classifier` changes the head alone; `num_classes=0` gives what the head would read."""
    model, x = trained(build, num_classes=3), images(2, 3, 65, 96)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    model.reset_classifier(2)
    after = model.state_dict()
    of_classes = tuple(f"{module}." for module in model.class_modules)
    rest = {key: value for key, value in before.items() if not key.startswith(of_classes)}
    expect_equal({key: value for key, value in after.items() if key in rest}, rest, "all but the head")
    expect(model.spec.num_classes == model.config["num_classes"] == 2, "reset_classifier(2) leaves spec or config")
    read: list[Tensor] = []
    model.get_classifier().register_forward_pre_hook(lambda _, inputs: read.append(inputs[0]))
    with torch.no_grad():
        expect(tuple(model(x).shape) == (2, 2, 65, 96), "reset_classifier(2) does not give two classes")
        model.reset_classifier(0)
        features = model(x)
    expect(isinstance(model.get_classifier(), nn.Identity), "reset_classifier(0) leaves a head")
    wanted = (2, model.num_features, 65, 96)
    expect(tuple(features.shape) == wanted, f"features of shape {tuple(features.shape)}, expected {wanted}")
    if model.decoder_stride == 1:
        expect(torch.equal(features, read[0][..., :65, :96]), "without a head, other features than it would read")
    model.reset_classifier(1)
    with torch.no_grad():
        expect(tuple(model(x).shape) == (2, 1, 65, 96), "a head cannot be given back")
