"""timm: PyTorch image models, with `timm.create_model`.

Its weights lie on the Hugging Face hub, each in a repository of its own; timm publishes hashes of the older files only.
"""

from __future__ import annotations

from collections.abc import Collection
from types import ModuleType
from typing import TYPE_CHECKING, Any
from unittest import mock

from zoo.verify.references import Library, Published
from zoo.verify.torchvision_shim import import_torchvision

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

HUB = "https://huggingface.co/timm"
# The repositories of the weights that timm loads by default, by their licences: names of models, and of their training.
WEIGHTS = {
    "mit": """
repvgg_a0.rvgg_in1k repvgg_a1.rvgg_in1k repvgg_a2.rvgg_in1k repvgg_b0.rvgg_in1k repvgg_b1.rvgg_in1k
repvgg_b1g4.rvgg_in1k repvgg_b2.rvgg_in1k repvgg_b2g4.rvgg_in1k repvgg_b3.rvgg_in1k repvgg_b3g4.rvgg_in1k
hrnet_w18.ms_aug_in1k hrnet_w30.ms_in1k hrnet_w32.ms_in1k hrnet_w40.ms_in1k hrnet_w44.ms_in1k hrnet_w48.ms_in1k
hrnet_w64.ms_in1k edgenext_xx_small.in1k edgenext_x_small.in1k edgenext_small.usi_in1k edgenext_base.usi_in1k
rexnet_100.nav_in1k rexnet_130.nav_in1k rexnet_150.nav_in1k rexnet_200.nav_in1k rexnet_300.nav_in1k
convmixer_768_32.in1k convmixer_1024_20_ks9_p14.in1k convmixer_1536_20.in1k efficientvit_m0.r224_in1k
efficientvit_m1.r224_in1k efficientvit_m2.r224_in1k efficientvit_m3.r224_in1k efficientvit_m4.r224_in1k
efficientvit_m5.r224_in1k eva02_tiny_patch14_336.mim_in22k_ft_in1k eva02_small_patch14_336.mim_in22k_ft_in1k
eva02_base_patch14_448.mim_in22k_ft_in22k_in1k eva02_large_patch14_448.mim_in22k_ft_in22k_in1k
""",
    "mobileone-license": """
mobileone_s0.apple_in1k mobileone_s1.apple_in1k mobileone_s2.apple_in1k mobileone_s3.apple_in1k mobileone_s4.apple_in1k
""",
    "apache-2.0": """
seresnet50.a1_in1k seresnext50_32x4d.racm_in1k seresnext101_32x4d.gluon_in1k senet154.gluon_in1k ghostnet_100.in1k
resnest14d.gluon_in1k resnest26d.gluon_in1k resnest50d.in1k resnest101e.in1k resnest200e.in1k resnest50d_1s4x24d.in1k
resnest50d_4s2x40d.in1k starnet_s1.in1k starnet_s2.in1k starnet_s3.in1k starnet_s4.in1k ese_vovnet19b_dw.ra_in1k
ese_vovnet39b.ra_in1k tf_efficientnet_b0.ns_jft_in1k tf_efficientnet_b1.ns_jft_in1k tf_efficientnet_b2.ns_jft_in1k
tf_efficientnet_b3.ns_jft_in1k tf_efficientnet_b4.ns_jft_in1k tf_efficientnet_b5.ns_jft_in1k
tf_efficientnet_b6.ns_jft_in1k tf_efficientnet_b7.ns_jft_in1k tf_efficientnet_b8.ap_in1k tf_efficientnet_lite0.in1k
tf_efficientnet_lite1.in1k tf_efficientnet_lite2.in1k tf_efficientnet_lite3.in1k tf_efficientnet_lite4.in1k
inception_v4.tf_in1k repvit_m0_9.dist_300e_in1k repvit_m1_0.dist_300e_in1k repvit_m1_1.dist_300e_in1k
repvit_m1_5.dist_300e_in1k repvit_m2_3.dist_300e_in1k repvit_m1.dist_in1k repvit_m2.dist_in1k repvit_m3.dist_in1k
hgnetv2_b0.ssld_stage2_ft_in1k hgnetv2_b1.ssld_stage2_ft_in1k hgnetv2_b2.ssld_stage2_ft_in1k
hgnetv2_b3.ssld_stage2_ft_in1k hgnetv2_b4.ssld_stage2_ft_in1k hgnetv2_b5.ssld_stage2_ft_in1k
hgnetv2_b6.ssld_stage2_ft_in1k deit_tiny_patch16_224.fb_in1k deit_small_patch16_224.fb_in1k
deit_base_patch16_224.fb_in1k deit_tiny_distilled_patch16_224.fb_in1k deit_small_distilled_patch16_224.fb_in1k
deit_base_distilled_patch16_224.fb_in1k deit3_small_patch16_224.fb_in1k deit3_medium_patch16_224.fb_in1k
deit3_base_patch16_224.fb_in1k deit3_large_patch16_224.fb_in1k hrnet_w18_small.gluon_in1k hrnet_w18_small_v2.gluon_in1k
mobilenetv4_conv_small.e2400_r224_in1k mobilenetv4_conv_medium.e500_r256_in1k mobilenetv4_conv_large.e600_r384_in1k
efficientvit_b0.r224_in1k efficientvit_b1.r224_in1k efficientvit_b2.r224_in1k efficientvit_b3.r224_in1k pvt_v2_b0.in1k
pvt_v2_b1.in1k pvt_v2_b2.in1k pvt_v2_b3.in1k pvt_v2_b4.in1k pvt_v2_b5.in1k ghostnetv2_100.in1k ghostnetv2_130.in1k
ghostnetv2_160.in1k poolformer_s12.sail_in1k poolformer_s24.sail_in1k poolformer_s36.sail_in1k poolformer_m36.sail_in1k
poolformer_m48.sail_in1k inception_resnet_v2.tf_in1k darknet53.c2ns_in1k cspdarknet53.ra_in1k
tiny_vit_5m_224.dist_in22k_ft_in1k tiny_vit_11m_224.dist_in22k_ft_in1k tiny_vit_21m_224.dist_in22k_ft_in1k
vit_small_patch14_dinov2.lvd142m vit_base_patch14_dinov2.lvd142m vit_large_patch14_dinov2.lvd142m
vit_small_patch14_reg4_dinov2.lvd142m vit_base_patch14_reg4_dinov2.lvd142m vit_large_patch14_reg4_dinov2.lvd142m
dpn68.mx_in1k dpn92.mx_in1k dpn98.mx_in1k dpn107.mx_in1k dpn131.mx_in1k resnetv2_50x1_bit.goog_distilled_in1k
resnetv2_50x3_bit.goog_in21k_ft_in1k resnetv2_101x1_bit.goog_in21k_ft_in1k resnetv2_101x3_bit.goog_in21k_ft_in1k
resnetv2_152x2_bit.goog_teacher_in21k_ft_in1k resnetv2_152x4_bit.goog_in21k_ft_in1k levit_128s.fb_dist_in1k
levit_128.fb_dist_in1k levit_192.fb_dist_in1k levit_256.fb_dist_in1k levit_384.fb_dist_in1k cait_xxs24_224.fb_dist_in1k
cait_xxs24_384.fb_dist_in1k cait_xxs36_224.fb_dist_in1k cait_xxs36_384.fb_dist_in1k cait_xs24_384.fb_dist_in1k
cait_s24_224.fb_dist_in1k cait_s24_384.fb_dist_in1k cait_s36_384.fb_dist_in1k cait_m36_384.fb_dist_in1k
cait_m48_448.fb_dist_in1k beit_base_patch16_224.in22k_ft_in22k_in1k beit_base_patch16_384.in22k_ft_in22k_in1k
beit_large_patch16_224.in22k_ft_in22k_in1k beit_large_patch16_384.in22k_ft_in22k_in1k
beit_large_patch16_512.in22k_ft_in22k_in1k beitv2_base_patch16_224.in1k_ft_in22k_in1k
beitv2_large_patch16_224.in1k_ft_in22k_in1k mixer_b16_224.goog_in21k_ft_in1k mixer_l16_224.goog_in21k_ft_in1k
gmixer_24_224.ra3_in1k resmlp_12_224.fb_in1k resmlp_24_224.fb_in1k resmlp_36_224.fb_in1k resmlp_big_24_224.fb_in1k
gmlp_s16_224.ra3_in1k pit_ti_224.in1k pit_xs_224.in1k pit_s_224.in1k pit_b_224.in1k pit_ti_distilled_224.in1k
pit_xs_distilled_224.in1k pit_s_distilled_224.in1k pit_b_distilled_224.in1k visformer_tiny.in1k visformer_small.in1k
twins_pcpvt_small.in1k twins_pcpvt_base.in1k twins_pcpvt_large.in1k twins_svt_small.in1k twins_svt_base.in1k
twins_svt_large.in1k convit_tiny.fb_in1k convit_small.fb_in1k convit_base.fb_in1k nfnet_l0.ra2_in1k dm_nfnet_f0.dm_in1k
dm_nfnet_f1.dm_in1k dm_nfnet_f2.dm_in1k dm_nfnet_f3.dm_in1k dm_nfnet_f4.dm_in1k dm_nfnet_f5.dm_in1k dm_nfnet_f6.dm_in1k
nest_tiny_jx.goog_in1k nest_small_jx.goog_in1k nest_base_jx.goog_in1k tnt_s_patch16_224.in1k tnt_b_patch16_224.in1k
fasternet_t0.in1k fasternet_t1.in1k fasternet_t2.in1k fasternet_s.in1k fasternet_m.in1k fasternet_l.in1k
inception_next_atto.sail_in1k inception_next_tiny.sail_in1k inception_next_small.sail_in1k inception_next_base.sail_in1k
""",
    "cc-by-nc-4.0": """
convnextv2_atto.fcmae_ft_in1k convnextv2_femto.fcmae_ft_in1k convnextv2_pico.fcmae_ft_in1k
convnextv2_nano.fcmae_ft_in22k_in1k convnextv2_tiny.fcmae_ft_in22k_in1k convnextv2_base.fcmae_ft_in22k_in1k
convnextv2_large.fcmae_ft_in22k_in1k
""",
    "unknown": """
res2net50_26w_4s.in1k res2net50_14w_8s.in1k res2net50_26w_6s.in1k res2net50_26w_8s.in1k res2net50_48w_2s.in1k
res2net101_26w_4s.in1k res2next50.in1k res2net50d.in1k
""",
    "bsd-3-clause": """
dla34.in1k dla46_c.in1k dla46x_c.in1k dla60x_c.in1k dla60.in1k dla60x.in1k dla102.in1k dla102x.in1k dla102x2.in1k
dla169.in1k
""",
    "fastvit-license": """
fastvit_t8.apple_in1k fastvit_t12.apple_in1k fastvit_s12.apple_in1k
""",
    "cvnets-license": """
mobilevit_xxs.cvnets_in1k mobilevit_xs.cvnets_in1k mobilevit_s.cvnets_in1k mobilevitv2_050.cvnets_in1k
mobilevitv2_075.cvnets_in1k mobilevitv2_100.cvnets_in1k mobilevitv2_125.cvnets_in1k mobilevitv2_150.cvnets_in1k
mobilevitv2_175.cvnets_in1k mobilevitv2_200.cvnets_in1k
""",
    "dinov3-license": """
vit_small_patch16_dinov3.lvd1689m vit_small_plus_patch16_dinov3.lvd1689m vit_base_patch16_dinov3.lvd1689m
vit_large_patch16_dinov3.lvd1689m
""",
}
# Between what calibration draws parameters of these names: what multiplies the filters and branches of NFNets and the
# channels of ResMLP, and the shares of ResMLP's branches, small since nothing normalises their sum.
DRAWN = {
    "alpha": (0.5, 1.5),
    "gain": (0.5, 1.5),
    "skipinit_gain": (0.5, 1.5),
    "ls1": (0.05, 0.15),
    "ls2": (0.05, 0.15),
}
_REPOSITORIES = {
    repository.partition(".")[0]: (repository, licence)
    for licence, repositories in WEIGHTS.items()
    for repository in repositories.split()
}


def dynamic(name: str) -> bool:
    """Whether it is published at one size, but used at others, for which its positions are resized."""
    return name.endswith("dinov2")


def windowed(name: str) -> bool:
    """Whether it has windows of the published size's map, and takes any size with these."""
    return name.startswith(("efficientvit_m", "twins_"))


def _timm() -> ModuleType:
    """timm, without PyTorch's compiler, which takes two seconds and leaves five functions of NaFlexViT alone."""
    import torch

    import_torchvision()  # which timm imports
    with mock.patch.object(torch.compiler, "disable", None):  # as in versions of PyTorch that have none
        import timm
    return timm


class Timm(Library):
    name = "timm"
    package = "timm"
    install = "pip install timm"

    def names(self) -> Collection[str]:
        """The networks, and each with every training that has weights: `mixer_b16_224`, `mixer_b16_224.goog_in21k`."""
        timm = _timm()
        return timm.list_models() + timm.list_models(pretrained=True)

    def load(self, name: str, classes: int | None) -> nn.Module:
        timm = _timm()
        if name not in self.names():
            raise self.unknown(name)
        options = {"dynamic_img_size": True} if dynamic(name) else {}
        return timm.create_model(name, **options, **{} if classes is None else {"num_classes": classes})

    def resized(self, module: nn.Module, size: tuple[int, int, int]) -> nn.Module:
        import timm

        known, name = module.pretrained_cfg, module.pretrained_cfg["architecture"]
        if not known.get("fixed_input_size") or known["input_size"] == size or dynamic(name) or windowed(name):
            return module
        made = timm.create_model(name, img_size=size[1:], num_classes=module.num_classes)
        return made.eval()

    def draw(self, name: str, parameter: nn.Parameter, generator: torch.Generator) -> bool:
        drawn = DRAWN.get(name.rpartition(".")[2])
        if drawn is not None:
            parameter.uniform_(*drawn, generator=generator)
        return drawn is not None

    def outputs(self, module: nn.Module, result: Any) -> dict[str, Tensor]:
        return {"logits" if module.num_classes else "embedding": result}

    def published(self, name: str) -> Published:
        network, _, training = name.partition(".")
        repository, licence = _REPOSITORIES.get(network, ("", ""))
        if not repository or training and repository != name:
            return super().published(name)
        address = f"{HUB}/{repository}/resolve/main/model.safetensors"
        origin, file = f"timm {repository}", f"{repository}.safetensors"
        labels = None if "dino" in network else "imagenet"  # DINO makes embeddings
        return Published(address, None, None, licence, origin, labels, file)


LIBRARY = Timm()
