"""The characteristic mistake of each family, planted: caught, and named by the layer where it starts."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest
from budget import everyday
from planting import Plant, changed, edit, identity, instead, keeps, plant, planted, swap, zero

from zoo import ops
from zoo.blocks.detr import positions
from zoo.engine.definition import define
from zoo.network import Net, Tensor
from zoo.registry import get_model
from zoo.trt import Api
from zoo.verify.proof import compare_reference, execute_on_cpu
from zoo.weights import from_arrays

SIZE = (3, 64, 97)


def _interleaved(real: Any, net: Net, x: Tensor, shape: Any, *more: Any) -> Tensor:
    """What belongs to each head is taken from all over."""
    return real(net, ops.channel_shuffle(net.functional, x, 2), shape, *more)


def _nothing(real: Any, *args: Any, **options: Any) -> Any:
    """A branch that is lost before its sum with the others."""
    kernel = real(*args, **options)
    return kernel.scaled(np.zeros_like(kernel.bias))


def _row_by_row(real: Any, net: Net, x: Tensor) -> Tensor:
    first, second, third, fourth = ops.split(net, real(net, x), [x.shape[3]] * 4, 3)
    return ops.concat(net, [first, third, second, fourth], 3)


BUGS: list[tuple[str, str, str, Plant]] = [  # model, the mistake, where it starts, how it is planted
    ("densenet121", "the newest maps first", "features.denseblock1.denselayer2.norm1",
        plant("features.denseblock1.concat():0", lambda real, net, x, **options: real(net, x[::-1], **options))),
    ("densenet121", "no ReLU after the last normalisation", "classifier", plant("relu()", keeps("x"))),
    ("densenet121", "transition halves by a maximum", "features.transition1.pool",
        plant("features.transition1.pool", instead(ops.max_pool, 2))),
    ("shufflenet_v2_x0_5", "ReLU after a depthwise convolution", "stage2.1.branch2.6",
        plant("stage2.1.branch2.4", lambda real, net, *a, **o: ops.relu(net.functional, real(net, *a, **o)))),
    ("shufflenet_v2_x0_5", "channels not shuffled", "stage2.1",
        plant("stage2.1.channel_shuffle()", keeps("x"))),
    ("shufflenet_v2_x0_5", "shuffled by four", "stage3.0", plant("stage3.0.channel_shuffle()", changed(groups=4))),
    ("mnasnet0_5", "no shortcut", "layers.8.1", plant("layers.8.1.add()", keeps("x"))),
    ("efficientnet_b0", "eps 1e-3", "features.3.0.block.0.1", plant("features.3.0.block.0.1", changed(eps=1e-3))),
    ("efficientnet_b0", "ReLU in squeeze-and-excite", "features.2.0.block.2.activation",
        plant("features.2.0.block.2.activation", instead(ops.relu))),
    ("efficientnet_b0", "hard sigmoid gates", "features.4.0.block.2.scale_activation",
        plant("features.4.0.block.2.scale_activation", instead(ops.hardsigmoid))),
    ("regnet_y_400mf", "no ReLU after the sum", "trunk_output.block2.block2-0.activation",
        plant("trunk_output.block2.block2-0.activation", identity)),
    ("regnet_x_400mf", "lost bias of a normalisation", "trunk_output.block1.block1-0.f.b.1",
        zero("trunk_output.block1.block1-0.f.b.1.bias")),
    ("convnext_tiny", "LayerNorm eps 1e-5", "features.5.4.block.2", plant("features.5.4.block.2", changed(eps=1e-5))),
    ("convnext_tiny", "GELU by tanh", "features.3.1.block.4", plant("features.3.1.block.4", instead(ops.gelu_tanh))),
    ("convnext_tiny", "layer scale lost", "features.1.0", edit("features.1.0.layer_scale", np.ones_like)),
    ("yolo11n", "query, key and value one after the other", "model.10.m.0.attn.pe.bn",
        plant("model.10.m.0.attn.reshape():0", _interleaved)),
    ("yolo11n", "positional convolution lost", "model.10.m.0.attn.proj.bn",
        plant("model.10.m.0.attn.add()", keeps("x"))),
    ("yolo12n", "no areas", "model.6.m.0.0.attn.proj.bn",
        plant("model.6.m.0.0.attn.strip_attention()", changed(strips=1))),
    ("yolov9t", "no averaging before a map is halved", "model.3.cv1.bn",
        plant("model.3.avg_pool()", lambda real, net, x, *a, **o: ops.narrow(net, ops.narrow(
            net, x, 2, 0, x.shape[2] - 1), 3, 0, x.shape[3] - 1))),
    ("yolov9t", "RepConv without its 1x1", "model.4.cv2.0.m.0.cv1.act",
        plant("model.4.cv2.0.m.0.cv1.add()", keeps("x"))),
    ("yolov10n", "SiLU after the depthwise half of SCDown", "model.6.cv1.bn",
        plant("model.5.cv2.linear_conv()", lambda real, net, x, *a, **o: ops.silu(
            net.functional, real(net, x, *a, **o)))),
    ("yolo26n", "no shortcut in SPPF", "model.9", plant("model.9.add()", keeps("x"))),
    ("yolo26n_p6", "the shortcut of YOLO26's SPPF", "model.11", plant("model.11.sppf()", changed(shortcut=True))),
    ("yolo26n", "distances in pixels of the first level", "boxes",
        plant("model.23.boxes_around()", lambda real, net, sides, *a: real(net, ops.mul(net.fp32, sides, 8.0), *a))),
    ("yolov5nu", "BatchNorm eps 1e-5", "model.9.cv1.bn", plant("model.9.cv1.bn", changed(eps=1e-5))),
    ("yolov8n_cls", "BatchNorm eps of the detectors", "model.0.bn", plant("model.0.bn", changed(eps=1e-3))),
    ("yolov8n_pose", "points from the centres of cells, as boxes", "keypoints",
        plant("model.22.points_around()", changed(shift=0.0))),
    ("yolo26n_pose", "points as YOLO11 has them", "keypoints",
        plant("model.23.points_around()", changed(scale=2.0, shift=0.5))),
    ("yolo26n_seg", "coarser levels left out of the prototypes", "model.23.proto.feat_fuse.bn",
        plant("model.23.proto.add():1", keeps("x"))),
    ("yolov8n_obb", "boxes turned the other way", "boxes",
        plant("model.22.turned_boxes_around()", lambda real, net, sides, angles, *a: real(
            net, sides, ops.mul(net.fp32, angles, -1.0), *a))),
    ("yolox_nano", "pixels of a square row by row", "backbone.backbone.stem.conv.bn",
        plant("backbone.backbone.stem.transpose()", lambda real, net, x, axes: real(net, x, (0, 3, 5, 1, 2, 4)))),
    ("yolox_nano", "places are half a cell of the first level on", "boxes",
        plant("head.add()", lambda real, net, x, y: real(net, real(net, x, y), 4.0))),
    ("yolo_nas_s", "shortcuts that are not scaled", "backbone.stage1.blocks.bottlenecks.0",
        edit("backbone.stage1.blocks.bottlenecks.0.alpha", np.ones_like)),
    ("yolo_nas_s", "the 1x1 branch left out", "backbone.stage2.downsample.nonlinearity",
        plant("backbone.stage2.downsample.branch_1x1", _nothing)),
    ("yolov5n_seg", "prototypes enlarged smoothly", "model.24.proto.upsample",
        plant("model.24.proto.upsample", lambda real, net, x, *a: real(net, x, *a, mode="bilinear"))),
    ("yolov7_tiny", "SiLU, as in its larger ones", "model.0.act", plant("model.0.act", instead(ops.silu))),
    ("yolov7_tiny", "poolings joined from the smallest window on", "model.34",
        plant("model.34.concat()", lambda real, net, x: real(net, x[::-1]))),
    ("yolov6n_meituan", "ReLU in the head, as everywhere else", "detect.stems.0.act",
        plant("detect.stems.0.act", instead(ops.relu))),
    ("yolov6n_meituan", "no branch that only normalises", "neck.Rep_p4.conv1.nonlinearity",
        plant("neck.Rep_p4.conv1.rbr_identity", _nothing)),
    ("yolov4_tiny", "the first half of a stage's channels", "models.4.bn4", plant("models.3", changed(start=0))),
    ("yolov4_tiny", "centres stay in their cells", "boxes",
        plant("mul():1", lambda real, net, x, y: real(net, real(net, x, y), 1 / 1.05))),
    ("centernet_resdcn18", "weights of the taps without a sigmoid", "deconv_layers.0",
        plant("deconv_layers.0.sigmoid()", keeps("x"))),
    ("centernet_resdcn18", "offsets of all rows before those of all columns", "deconv_layers.6",
        plant("deconv_layers.6.split()", lambda real, net, x, sizes: [
            ops.channel_shuffle(net.functional, real(net, x, sizes)[0], 2), real(net, x, sizes)[1]])),
    ("yolov6n", "SiLU, as in the other YOLOs", "model.0.act", plant("model.0.act", instead(ops.silu))),
    ("googlenet", "poolings round down", "maxpool2", plant("maxpool2", changed(ceil_mode=False))),
    ("googlenet", "branches in another order", "inception4b",
        plant("inception4b.concat()", lambda real, net, x: real(net, [x[0], x[1], x[3], x[2]]))),
    ("fcn_resnet50", "the first block of a dilated stage dilates like the others", "backbone.layer3.0.bn2",
        plant("backbone.layer3.0.bn2", changed(dilation=2))),
    ("fcn_resnet50", "logits stretched corner to corner", "logits", plant("upsample()", changed(align_corners=True))),
    ("deeplabv3_mobilenet_v3_large", "the largest rate is 24", "classifier.0.convs.3.1",
        plant("classifier.0.convs.3.1", changed(dilation=24))),
    ("deeplabv3_mobilenet_v3_large", "BatchNorm eps 1e-3 in the head", "classifier.0.convs.1.1",
        plant("classifier.0.convs.1.1", changed(eps=1e-3))),
    ("lraspp_mobilenet_v3_large", "gated by a hard sigmoid", "classifier.scale.2",
        plant("classifier.scale.2", instead(ops.hardsigmoid))),
    ("lraspp_mobilenet_v3_large", "the last stage strides", "backbone.13.block.1.1",
        plant("backbone.13.block.1.1", changed(stride=2, dilation=1))),
    ("repvgg_a0", "no branch that only normalises", "stages.2.1.act", plant("stages.2.1.identity", _nothing)),
    ("mobileone_s0", "one of four convolutions", "stages.2.4.act", plant("stages.2.4.conv_kxk.1.bn", _nothing)),
    ("deeplabv3plus_resnet34", "the first block of the dilated stage does not dilate", "encoder.layer4.0.bn1",
        plant("encoder.layer4.0.bn1", changed(dilation=1))),
    ("unet_resnet34", "the encoder's map first", "decoder.blocks.1.conv1.1",
        plant("decoder.blocks.1.concat()", lambda real, net, x, *a: real(net, x[::-1], *a))),
    ("unetplusplus_resnet34", "maps beside in the other order", "decoder.blocks.x_0_2.conv1.1",
        plant("decoder.blocks.x_0_2.concat()", lambda real, net, x, *a: real(net, [x[0], *x[2:0:-1], *x[3:]], *a))),
    ("linknet_resnet34", "lost bias of a transposed convolution", "decoder.blocks.3.block.1.0",
        zero("decoder.blocks.3.block.1.0.bias")),
    ("fpn_resnet34", "branches resized by the middles of pixels", "decoder.seg_blocks.0.block.0",
        plant("decoder.seg_blocks.0.block.0.upsample()", changed(align_corners=False))),
    ("pspnet_resnet34", "logits resized by the middles of pixels", "segmentation_head.1",
        plant("segmentation_head.1", changed(align_corners=False))),
    ("segformer_b0", "maps joined from fine to coarse", "decode_head.batch_norm",
        plant("decode_head.concat()", lambda real, net, x, *a: real(net, x[::-1], *a))),
    ("segformer_b0", "activation before the convolution of the MLP", "segformer.stages.1.blocks.0.mlp.dwconv.dwconv",
        plant("segformer.stages.1.blocks.0.mlp.fc1", lambda real, net, *a, **o: ops.gelu(
            net.functional, real(net, *a, **o)))),
    ("depth_anything_v2_small", "positions interpolated between two", "backbone.embeddings",
        plant("backbone.embeddings.upsample()", changed(mode="bilinear"))),
    ("depth_anything_v2_small", "maps resized by the middles of pixels", "neck.fusion_stage.layers.1.projection",
        plant("neck.fusion_stage.layers.1.upsample()", changed(align_corners=False))),
    ("depth_anything_v2_small", "no ReLU before a residual unit",
        "neck.fusion_stage.layers.2.residual_layer2.activation1",
        plant("neck.fusion_stage.layers.2.residual_layer2.activation1", identity)),
    ("depth_anything_v2_small", "GELU by tanh", "backbone.encoder.layer.4.mlp.activation_fn",
        plant("backbone.encoder.layer.4.mlp.activation_fn", instead(ops.gelu_tanh))),
    ("seresnet18", "the input is gated too", "layer2.1.act2", plant("layer2.1.add()", lambda real, net, x, y: real(
        net, x, ops.mul(net, y, ops.sigmoid(net.functional, ops.reduce_mean(net, y, (2, 3), keepdims=True)))))),
    ("ghostnet_050", "the cheap half first", "blocks.3.0.ghost1",
        plant("blocks.3.0.ghost1.concat()", lambda real, net, x: real(net, x[::-1]))),
    ("ghostnet_050", "ReLU at the end of a block", "blocks.2.0.ghost2",
        plant("blocks.2.0.ghost2.narrow()", lambda real, net, *a: ops.relu(net.functional, real(net, *a)))),
    ("convnextv2_atto", "divided by the sum of all lengths", "stages.1.blocks.0.mlp.grn",
        plant("stages.1.blocks.0.mlp.grn.reduce_mean()", instead(ops.reduce_sum, 3, keepdims=True))),
    ("convnextv2_atto", "what is scaled is not added", "stages.2.blocks.1.mlp.grn",
        plant("stages.2.blocks.1.mlp.grn.add():2", keeps("y"))),
    ("swin_t", "windows not shifted", "features.3.1.attn",
        plant("features.3.1.attn.window_attention()", changed(shifted=False))),
    ("swin_t", "neighbours joined row by row", "features.2.norm", plant("features.2.fourfold()", _row_by_row)),
    ("swin_v2_t", "queries not of unit length", "features.1.0.attn",
        plant("features.1.0.attn.l2_normalize():0", keeps("x"))),
    ("res2net50_48w_2s", "the first block of a stage leaves its last part alone", "layer1.0.bn3",
        plant("layer1.0.pool", keeps("x"))),
    ("resnest14d", "splits not weighed against each other", "layer2.0.conv2.rsoftmax",
        plant("layer2.0.conv2.rsoftmax.softmax()", lambda real, net, x, axis: ops.sigmoid(net, x))),
    ("resnest14d", "shortcuts halve by a maximum", "layer3.0.downsample.0",
        plant("layer3.0.downsample.0", instead(ops.max_pool, 2, ceil_mode=True))),
    ("starnet_s050", "both maps are clipped", "stages.1.1.g.bn", plant("stages.1.1.mul()", lambda real, net, x, y: real(
        net, x, ops.relu6(net.functional, y)))),
    ("ese_vovnet19b_dw", "poolings round down", "stages.1.pool", plant("stages.1.pool", changed(ceil_mode=False))),
    ("ese_vovnet19b_dw", "joined from the last to the first", "stages.2.blocks.0.conv_concat.bn.act",
        plant("stages.2.blocks.0.concat()", lambda real, net, x: real(net, x[::-1]))),
    ("tf_efficientnet_lite0", "padding on both sides", "blocks.1.0.bn2.act",
        plant("blocks.1.0.bn2", changed(pad=1))),
    ("tf_efficientnet_lite0", "BatchNorm eps 1e-5", "blocks.2.1.bn3", plant("blocks.2.1.bn3", changed(eps=1e-5))),
    ("xception", "no ReLU before a separable convolution", "block4.rep.3", plant("block4.rep.3", identity)),
    ("inception_v4", "averages count the padding", "features.6.branch3.0",
        plant("features.6.branch3.0", changed(count_include_pad=True))),
    ("repvit_m0_9", "a token mixer without its input", "stages.2.blocks.1.token_mixer",
        plant("stages.2.blocks.1.token_mixer.identity_kernel()", _nothing)),
    ("hgnetv2_b0", "zeros before a window", "stem.stem2a.bn", plant("stem.pad():0", changed(sides=(1, 0, 1, 0)))),
    ("dla46x_c", "what is handed down comes first", "level3.tree2.root.bn",
        plant("level3.tree2.root.concat()", lambda real, net, x: real(net, x[::-1]))),
    ("deit_tiny_patch16_224", "LayerNorm eps 1e-5", "blocks.0.norm1", plant("blocks.0.norm1", changed(eps=1e-5))),
    ("hrnet_w18_small", "ReLU after the last strided convolution", "stage3.0.fuse_act:1", plant(
        "stage3.0.fuse_layers.1.0.brought()", lambda real, net, *a: ops.relu(net.functional, real(net, *a)))),
    ("mobilenetv4_conv_small", "ReLU after the first filter", "blocks.2.0.pw_exp.bn.act",
        plant("blocks.2.0.dw_start.bn", lambda real, net, x, *a, **o: ops.relu(net.functional, real(net, x, *a, **o)))),
    ("fastvit_t8", "the normalised input not taken off", "stages.1.blocks.0.token_mixer",
        plant("stages.1.blocks.0.token_mixer.norm.identity", _nothing)),
    ("pvt_v2_b0", "one epsilon for all normalisations", "stages.1.blocks.0.attn.norm",
        plant("stages.1.blocks.0.attn.norm", changed(eps=1e-6))),
    ("ghostnetv2_100", "gated by a hard sigmoid, as in squeeze-and-excite", "blocks.2.0.ghost1.gate_fn",
        plant("blocks.2.0.ghost1.gate_fn", instead(ops.hardsigmoid))),
    ("poolformer_s12", "averages count the padding", "stages.0.blocks.0.token_mixer.pool",
        plant("stages.0.blocks.0.token_mixer.pool", changed(count_include_pad=True))),
    ("inception_resnet_v2", "one scale in all stages", "repeat_1.0.act",
        plant("repeat_1.0.residual()", changed(scale=0.17))),
    ("cspdarknet53", "what passes by joined last", "stages.1.conv_transition.bn.act",
        plant("stages.1.concat()", lambda real, net, x: real(net, x[::-1]))),
    ("edgenext_xx_small", "queries and keys as long as they are", "stages.1.blocks.1.xca.proj",
        plant("stages.1.blocks.1.xca.l2_normalize()", keeps("x"))),
    ("rexnet_100", "ReLU6 before squeeze-and-excite", "features.3.se.bn",
        plant("features.3.conv_dw.bn", lambda real, net, *a, **o: ops.relu6(net.functional, real(net, *a, **o)))),
    ("tiny_vit_5m_224", "scores without a bias for the distance", "stages.1.blocks.0.attn.proj",
        plant("stages.1.blocks.0.attn.attention()", changed(bias=None))),
    ("vit_small_patch14_dinov2", "positions of a grid that stands upright", "blocks.0.norm1",
        plant("positions()", changed(grid=(4, 3)))),
    ("vit_small_patch16_dinov3", "keys do not turn", "blocks.2.attn.proj",
        plant("blocks.2.attn.rotate():1", keeps("x"))),
    ("dpn68", "ELU at the end", "features.conv5_bn_ac.bn.act",
        plant("features.conv5_bn_ac.bn.act", instead(ops.elu))),
    ("squeezenet1_1", "the wide half first", "features.3",
        plant("features.3.concat()", lambda real, net, x: real(net, x[::-1]))),
    ("efficientvit_b0", "products not divided by their sum", "stages.2.blocks.1.context_module.main.proj.norm",
        plant("stages.2.blocks.1.context_module.main.div()", keeps("x"))),
    ("mobilevit_xxs", "the input joined after what the block computed", "stages.2.1.conv_fusion.bn.act",
        plant("stages.2.1.concat()", lambda real, net, x: real(net, x[::-1]))),
    ("mobilevitv2_050", "maps resized by the middles of pixels", "stages.3.1.conv_kxk.bn.act",
        plant("stages.3.1.upsample()", changed(align_corners=False))),
    ("retinaface_mobile025", "widths grow as middles move", "boxes",
        plant("exp()", lambda real, net, x: real(net, ops.mul(net, x, 0.5)))),
    ("retinaface_mobile025", "no leak in the context", "ssh1.conv5X5_1.2",
        plant("ssh1.conv5X5_1.2", instead(ops.relu))),
    ("facenet", "blocks of 17 scaled as those of 35", "repeat_2.3.relu",
        plant("repeat_2.3.residual()", changed(scale=0.17))),
    ("mobilefacenet", "no shortcut", "conv_4.model.2", plant("conv_4.model.2.add()", keeps("y"))),
    ("mtcnn_pnet", "poolings round down", "pool1", plant("pool1", changed(ceil_mode=False))),
    ("mtcnn_onet", "maps flattened row by row", "dense5", plant("transpose()", keeps("x"))),
    ("crnn_mobilenet_v3_small", "gates in the order of ONNX", "decoder",
        edit("decoder.weight_hh_l0", lambda array: np.concatenate([np.split(array, 4)[i] for i in (0, 3, 1, 2)]))),
    ("crnn_mobilenet_v3_small", "what was read from the end not turned around", "decoder",
        plant("decoder.index_select():1", keeps("x"))),
    ("db_mobilenet_v3_large", "maps enlarged by the middles of pixels", "fpn.upsample",
        plant("fpn.upsample.upsample()", changed(align_corners=False))),
    ("osnet_x0_25", "the second branch left out", "conv2.0.conv3.bn",
        plant("conv2.0.add():0", keeps("x"))),
    ("resnet50_ibn_a", "the other half by instances", "layer1.0.bn1.IN",
        plant("layer1.0.bn1.split()", lambda real, net, x, sizes: real(net, x, sizes)[::-1])),
    ("superpoint", "the softmax over the pixels alone", "scores",
        plant("softmax()", lambda real, net, x, axis: ops.concat(net, [
            real(net, ops.narrow(net, x, 1, 0, 64), axis), ops.narrow(net, x, 1, 64, 1)]))),
    ("bisenet_face", "coarse maps enlarged smoothly", "cp.conv_head32.bn",
        plant("cp.upsample():0", changed(mode="bilinear"))),
    ("parsenet", "zeros beside a map, not its mirror image", "encoder.1.conv1.reflection_pad",
        plant("encoder.1.conv1.reflection_pad", changed(mode="constant"))),
    ("csrnet", "the last layers do not dilate", "backend.4", plant("backend.4", changed(dilation=1))),
    ("refinenet_lw50", "a chain without its first pooling", "mflow_conv_g1_pool.0",
        plant("mflow_conv_g1_pool.0.add():0", keeps("y"))),
    ("realesrgan_x4plus_anime_6b", "what three blocks add is not scaled again", "body.0",
        plant("body.0.mul()", keeps("x"))),
    ("realesr_animevideov3", "the picture enlarged smoothly", "picture",
        plant("upsample()", changed(mode="bilinear"))),
    ("yolo12n_pose", "points from the centres of cells, as boxes", "keypoints",
        plant("model.21.points_around()", changed(shift=0.0))),
    ("yolo12n_obb", "boxes turned the other way", "boxes",
        plant("model.21.turned_boxes_around()", lambda real, net, sides, angles, *a: real(
            net, sides, ops.mul(net.fp32, angles, -1.0), *a))),
    ("yolo12n_seg", "lost bias of a transposed convolution", "model.21.proto.upsample",
        zero("model.21.proto.upsample.bias")),
    ("yolo12n_cls", "BatchNorm eps of the detectors", "model.0.bn", plant("model.0.bn", changed(eps=1e-3))),
    ("yolov9e", "coarser levels left out of the second trunk", "model.16",
        plant("model.16.fused()", lambda real, net, x, parts, level: real(net, x, parts[: level + 1], level))),
    ("arcface_ir_se50", "shortcuts halve by averages", "body.0.shortcut_layer",
        plant("body.0.shortcut_layer.max_pool()", instead(ops.avg_pool, 2))),
    ("retinanet_resnet50_fpn", "anchors around the middles of cells", "boxes",
        plant("head.regression_head.decode()", lambda real, net, codes, centre, *a: real(
            net, codes, ops.add(net, centre, 4.0), *a))),
    ("fcos_resnet50_fpn", "a product without its root", "scores",
        plant("head.classification_head.sqrt()", keeps("x"))),
    ("rtdetr_l", "one epsilon for all normalisations", "model.28.decoder.layers.0.norm1",
        plant("model.28.decoder.layers.0.norm1", changed(eps=1e-3))),
    ("rtdetr_r18", "values know their positions", "model.decoder.layers.0.self_attn.v_proj",
        plant("model.decoder.layers.0.self_attn.attend_placed()", lambda real, net, x, positions, heads: real(
            net, ops.add(net, x, positions), ops.mul(net, positions, 0.0), heads))),
    ("detr_r50", "positions of RT-DETR", "model.encoder.layers.0.self_attn.q_proj",
        plant("model.position_embedding.waves()", lambda real, *args: positions(*args))),
    ("convmixer_768_32", "GELU, as in its wider ones", "blocks.4.2", plant("blocks.4.2", instead(ops.gelu))),
    ("resnetv2_50x1_bit", "epsilon of other standardised filters", "stages.1.blocks.1.conv1",
        plant("stages.1.blocks.1.conv1", changed(eps=1e-6))),
    ("resnetv2_50x1_bit", "the stem's maximum is not over zeros", "stem.pad",
        plant("stem.pad", lambda real, net, x, *a: real(net, x, *a, value=-1e4))),
    ("efficientvit_m0", "heads side by side", "stages.1.blocks.0.mixer.m.attn.qkvs.1.bn",
        plant("stages.1.blocks.0.mixer.m.attn.add():1", keeps("y"))),
    ("gmixer_24_224", "the first half gates the second", "blocks.0.mlp_tokens.act",
        plant("blocks.0.mlp_tokens.split()", lambda real, *a: real(*a)[::-1])),
    ("resmlp_12_224", "lost shifts of a channel", "blocks.1.norm1", zero("blocks.1.norm1.beta")),
    ("gmlp_s16_224", "one epsilon for all normalisations", "blocks.0.mlp_channels.gate.norm",
        plant("blocks.0.mlp_channels.gate.norm", changed(eps=1e-6))),
    ("pit_ti_224", "a window as large as its step", "transformers.1.pool.conv",
        edit("transformers.1.pool.conv.weight", lambda w: w * np.array([[0, 0, 0], [0, 1, 1], [0, 1, 1]]))),
    ("visformer_tiny", "no activation after the grouped convolution", "stage1.0.mlp.act2",
        plant("stage1.0.mlp.act2", identity)),
    ("twins_svt_small", "one epsilon for all normalisations", "blocks.0.0.norm1",
        plant("blocks.0.0.norm1", changed(eps=1e-5))),
    ("convit_tiny", "gates turned round", "blocks.0.attn.proj", edit("blocks.0.attn.gating_param", np.negative)),
    ("clip_vit_base_patch32", "exact GELU", "vision_model.encoder.layers.2.mlp.activation_fn",
        plant("vision_model.encoder.layers.2.mlp.activation_fn", instead(ops.gelu))),
    ("siglip_base_patch16_224", "exact GELU", "vision_model.head.mlp.activation_fn",
        plant("vision_model.head.mlp.activation_fn", instead(ops.gelu))),
    ("nfnet_l0", "the gain of GELU", "stages.1.0.conv2b",
        plant("stages.1.0.conv2b.standardised_conv2d()", changed(gain=1.7015))),
    ("nfnet_l0", "branches that are not doubled", "stages.0.0", plant("stages.0.0.mul():1", keeps("x"))),
    ("nest_tiny_jx", "joined head by head", "levels.1.transformer_encoder.0.attn.proj",
        plant("levels.1.transformer_encoder.0.attn.transpose():1", changed(axes=(0, 1, 3, 2, 4)))),
    ("tnt_s_patch16_224", "the epsilon of other transformers", "blocks.1.norm2_proj",
        plant("blocks.1.norm2_proj", changed(eps=1e-6))),
    ("sam_vit_base", "queries scaled before they meet the positions", "vision_encoder.layers.2.attn.proj",
        plant("vision_encoder.layers.2.attn.position_bias()", lambda real, net, q, *a: real(
            net, ops.mul(net, q, 0.125), *a))),
    ("fasternet_t0", "ReLU, as in the larger ones", "stages.1.blocks.0.mlp.2",
        plant("stages.1.blocks.0.mlp.2", instead(ops.relu))),
    ("inception_next_atto", "the channels that pass come last", "stages.1.blocks.0.token_mixer",
        plant("stages.1.blocks.0.token_mixer.concat()", lambda real, net, x, *a: real(net, [*x[1:], x[0]], *a))),
    ("vitpose_base_simple", "the class token's position left out", "backbone.encoder.layer.0.layernorm_before",
        edit("backbone.embeddings.position_embeddings", lambda table: np.concatenate(
            [0 * table[:, :1], table[:, 1:]], axis=1))),
    ("levit_128s", "queries from odd places", "stages.1.downsample.attn_downsample.q.down",
        plant("stages.1.downsample.attn_downsample.q.down", lambda real, net, x, axis, places: real(
            net, x, axis, [abs(place - 1) for place in places]))),
    ("cait_xxs24_224", "the class token last", "blocks_token_only.0.norm1",
        plant("blocks_token_only.0.concat()", lambda real, net, x, *a: real(net, x[::-1], *a))),
    ("cait_xxs24_224", "heads mixed before the softmax as after it", "blocks.2.attn.proj_l",
        swap("blocks.2.attn.proj_l.weight", "blocks.2.attn.proj_w.weight")),
    ("beit_base_patch16_224", "biases of the class token in another order", "blocks.1.attn.proj",
        edit("blocks.1.attn.relative_position_bias_table", lambda table: np.concatenate([table[:-3], table[:-4:-1]]))),
    ("eva02_tiny_patch14_336", "keys do not turn", "blocks.2.attn.proj",
        plant("blocks.2.attn.rotate():1", keeps("x"))),
]  # fmt: skip

SIZES = {
    "arcface_ir_se50": (3, 112, 112),
    "retinanet_resnet50_fpn": (3, 32, 64),
    "fcos_resnet50_fpn": (3, 32, 64),
    "yolov9e": (3, 32, 64),
    "yolo12n_pose": (3, 32, 64),
    "yolo12n_obb": (3, 32, 64),
    "yolo12n_seg": (3, 32, 64),
    "yolo12n_cls": (3, 32, 64),
    "beit_base_patch16_224": (3, 32, 48),
    "eva02_tiny_patch14_336": (3, 28, 42),
    "gmixer_24_224": (3, 32, 48),
    "resmlp_12_224": (3, 32, 48),
    "gmlp_s16_224": (3, 32, 48),
    "pit_ti_224": (3, 40, 56),
    "visformer_tiny": (3, 32, 64),
    "convit_tiny": (3, 48, 48),
    "twins_svt_small": (3, 32, 49),
    "clip_vit_base_patch32": (3, 64, 64),
    "siglip_base_patch16_224": (3, 48, 48),
    "nfnet_l0": (3, 32, 97),
    "nest_tiny_jx": (3, 64, 64),
    "tnt_s_patch16_224": (3, 32, 48),
    "sam_vit_base": (3, 32, 32),
    "vitpose_base_simple": (3, 64, 48),
    "levit_128s": (3, 80, 112),
    "cait_xxs24_224": (3, 32, 48),
    "efficientvit_m0": (3, 112, 208),
    "convmixer_768_32": (3, 35, 57),
    "resnetv2_50x1_bit": (3, 33, 49),
    "deeplabv3plus_resnet34": (3, 16, 608),
    "depth_anything_v2_small": (3, 42, 70),
    "deeplabv3_mobilenet_v3_large": (3, 17, 609),
    "fcn_resnet50": (3, 33, 49),
    "deit_tiny_patch16_224": (3, 224, 224),
    "cspdarknet53": (3, 32, 65),
    "detr_r50": (3, 65, 97),
    "vit_small_patch14_dinov2": (3, 42, 56),
    "vit_small_patch16_dinov3": (3, 48, 64),
    "dla46x_c": (3, 64, 96),
    "yolo26n_p6": (3, 64, 128),
    "centernet_resdcn18": (3, 64, 96),
    "hrnet_w18_small": (3, 64, 96),
    "inception_resnet_v2": (3, 107, 139),
    "inception_v4": (3, 107, 139),
    "facenet": (3, 79, 93),
    "retinaface_mobile025": (3, 35, 97),
    "mobilefacenet": (3, 112, 112),
    "mtcnn_pnet": (3, 37, 50),
    "mtcnn_onet": (3, 48, 48),
    "crnn_mobilenet_v3_small": (3, 32, 20),
    "db_mobilenet_v3_large": (3, 32, 64),
    "osnet_x0_25": (3, 65, 49),
    "resnet50_ibn_a": (3, 65, 49),
    "superpoint": (1, 32, 48),
    "bisenet_face": (3, 33, 49),
    "parsenet": (3, 32, 48),
    "csrnet": (3, 17, 26),
    "refinenet_lw50": (3, 33, 49),
    "realesrgan_x4plus_anime_6b": (3, 14, 19),
    "realesr_animevideov3": (3, 14, 19),
}


def size_of(name: str) -> tuple[int, int, int]:
    if name.endswith("net_resnet34") or name.startswith(("fpn", "unet")):
        return (3, 32, 64)
    return SIZES.get(name) or ((3, 96, 160) if name.startswith(("yolo", "rtdetr")) else SIZE)


@functools.cache
def case(name: str) -> tuple[Any, dict[str, np.ndarray], np.ndarray]:
    from zoo.verify.calibration import calibrated, sample_images, state_arrays

    reference = calibrated(get_model(name).reference, 0, size_of(name))
    return reference, state_arrays(reference), sample_images(2, size_of(name), seed=1)


@pytest.mark.parametrize(
    ("name", "mistake", "starts", "bug"),
    [pytest.param(*b, id=f"{b[0]} {b[1]}", marks=[] if everyday(b[0]) else [pytest.mark.slow]) for b in BUGS],
)
def test_a_characteristic_mistake(name: str, mistake: str, starts: str, bug: Plant, rtx: Api) -> None:
    reference, arrays, images = case(name)
    try:
        with planted([bug], arrays) as wrong:
            definition = define(get_model(name), from_arrays(wrong), rtx, images.shape)
            ours = execute_on_cpu(definition, list(definition.taps), images)
    except Exception as error:
        pytest.fail(f"{mistake} is refused instead of planted: {error}")
    report = compare_reference(reference, images, ours, list(definition.taps), definition.folded)
    assert not report.ok, mistake
    assert report.first_divergence is not None and report.first_divergence.name == starts
