"""The released weights files by name: where they are, which experiment they belong to, how large, under which licence.

Only what a public page said when it was read (`evidence`); None is what none said, and the hub is asked instead.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass

from cami2v.checkpoints.report import Role

CAMI2V = "MuteApo/CamI2V"
DYNAMICRAFTER_LICENCE = "Apache-2.0"
DYNAMICRAFTER_LICENCE_EVIDENCE = "its author in issue 117 of Doubiiu/DynamiCrafter: model and code are under Apache 2.0"

REALCAM_EVIDENCE = "no page that was read shows such a file; issue 7 of ZGCTroy/RealCam-I2V (February 2026) asks for it"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleasedFile:
    """One public weights file."""

    name: str
    """What `cami2v weights` calls it."""
    repository: str
    """On the Hugging Face hub; spaces/<name> for the files of a space."""
    file: str | None
    role: Role
    """full: a whole model; base: one without camera modules; delta: trained weights over a base; depth: its network;
    judge: a network that videos are measured with."""
    experiments: tuple[str, ...] = ()
    """That sample, evaluate or start from it."""
    used_by: str = ""
    """Overrides of `cami2v evaluate` that measure with it; FILE stands for where it is."""
    base: str | None = None
    """Name of the file that a delta goes over."""
    gigabytes: float | None = None
    """As the hub shows them, 10^9 bytes."""
    sha256: str | None = None
    licence: str | None = None
    evidence: str = ""


RELEASED_FILES = (
    ReleasedFile(
        name="dynamicrafter_256",
        repository="Doubiiu/DynamiCrafter",
        file="model.ckpt",
        role="base",
        experiments=("dynamicrafter_256", "motionctrl_256", "cameractrl_256", "cami2v_256", "realcam_i2v_256"),
        gigabytes=10.44,
        sha256="328d23963f1fe5af1324793117dfa80c8f5d3d31a2a7d5a6089a1c8aa72fb2da",
        licence=DYNAMICRAFTER_LICENCE,
        evidence=f"file page of the repository; {DYNAMICRAFTER_LICENCE_EVIDENCE}",
    ),
    ReleasedFile(
        name="dynamicrafter_512",
        repository="Doubiiu/DynamiCrafter_512",
        file="model.ckpt",
        role="base",
        experiments=("dynamicrafter_512", "cami2v_512", "realcam_i2v_512"),
        gigabytes=10.44,
        sha256="87b5eb1981ffa96110369dfc358c5a9e90b8ee18b24d711badab4e58baeaba97",
        licence=DYNAMICRAFTER_LICENCE,
        evidence=f"hash of two mirrors of the file (vdo/DynamiCrafter among them); {DYNAMICRAFTER_LICENCE_EVIDENCE}",
    ),
    ReleasedFile(
        name="motionctrl_256",
        repository=CAMI2V,
        file="256_motionctrl.pt",
        role="full",
        experiments=("motionctrl_256",),
        gigabytes=5.24,
        sha256="96a9d149c75c55148d295e608edb3beb3fa020ce971cb924bfdba6a3af2929aa",
        licence="MIT",
        evidence="commit a8bf912 and licence tag of the repository",
    ),
    ReleasedFile(
        name="cameractrl_256",
        repository=CAMI2V,
        file="256_cameractrl.pt",
        role="full",
        experiments=("cameractrl_256",),
        gigabytes=5.64,
        sha256="84c5b33948c46d512d3fb01b62c5368ffd2a01d13489d025266ae5822d3bfb6e",
        licence="MIT",
        evidence="commit a8bf912 and licence tag of the repository",
    ),
    ReleasedFile(
        name="cami2v_256",
        repository=CAMI2V,
        file="256_cami2v.pt",
        role="full",
        experiments=("cami2v_256",),
        gigabytes=5.74,
        sha256="d2535497c3079465a139264e4f6a099d9603f5df1d8714f0220b59d55bb267a9",
        licence="MIT",
        evidence="file page at commit 2379929 and licence tag of the repository",
    ),
    ReleasedFile(
        name="cami2v_512_50k",
        repository=CAMI2V,
        file="512_cami2v_50k.pt",
        role="full",
        experiments=("cami2v_512",),
        gigabytes=5.74,
        licence="MIT",
        evidence="file list at commit 2379929 and licence tag of the repository",
    ),
    ReleasedFile(
        name="cami2v_512_100k",
        repository=CAMI2V,
        file="512_cami2v_100k.pt",
        role="full",
        experiments=("cami2v_512",),
        gigabytes=5.74,
        sha256="d19575d5186255f0d0dc794cba8ab4ac90c985f5707de651edee35d872a971dd",
        licence="MIT",
        evidence="commit 2379929 and licence tag of the repository",
    ),
    ReleasedFile(
        name="realcam_i2v_256",
        repository=CAMI2V,
        file=None,
        role="delta",
        experiments=("realcam_i2v_256",),
        base="dynamicrafter_256",
        evidence=REALCAM_EVIDENCE,
    ),
    ReleasedFile(
        name="realcam_i2v_512",
        repository=CAMI2V,
        file=None,
        role="delta",
        experiments=("realcam_i2v_512",),
        base="dynamicrafter_512",
        evidence=REALCAM_EVIDENCE,
    ),
    ReleasedFile(
        name="depth_anything_v2_hypersim_vitl",
        repository="depth-anything/Depth-Anything-V2-Metric-Hypersim-Large",
        file="depth_anything_v2_metric_hypersim_vitl.pth",
        role="depth",
        experiments=("realcam_i2v_256", "realcam_i2v_512"),
        gigabytes=1.34,
        sha256="6f82ff2bc543ac02ddff4aa31fa363676a8305dd3ccf04e80e2af115a044cb6d",
        evidence="file page at commit 2c34ee4; licence disputed: the hub's tag was apache-2.0 in 2024, the project's "
        "README puts Large models under CC-BY-NC-4.0, and its issue 245 is open",
    ),
    ReleasedFile(
        name="fvd_videogpt_i3d",
        repository="spaces/LanguageBind/Open-Sora-Plan-v1.0.0",
        file="opensora/eval/fvd/videogpt/i3d_pretrained_400.pt",
        role="judge",
        used_by="evaluation/fvd=videogpt evaluation.measures.fvd_videogpt.weights=FILE",
        gigabytes=0.05,
        evidence="address at commit 810fa8c, in the README of JavisBench; no page that was read gives a hash, and the "
        "weights' author (VideoGPT) hands them out by other means",
    ),
    ReleasedFile(
        name="fvd_styleganv_i3d",
        repository="flateon/FVD-I3D-torchscript",
        file="i3d_torchscript.pt",
        role="judge",
        used_by="evaluation/fvd=styleganv evaluation.measures.fvd_styleganv.weights=FILE",
        gigabytes=0.05,
        sha256="bec6519f66ea534e953026b4ae2c65553c17bf105611c746d904657e5860a5e2",
        evidence="hash and size (51,235,320 bytes) in eight projects that check the file, four of them of the original "
        "address that StyleGAN-V gives",
    ),
    ReleasedFile(
        name="fvd_videomae_v2_ssv2",
        repository="OpenGVLab/VideoMAE2",
        file="mae-g/vit_g_hybrid_pt_1200e_ssv2_ft.pth",
        role="judge",
        used_by="evaluation/fvd=content_debiased evaluation.measures.fvd_content_debiased.weights=FILE",
        gigabytes=2.02,
        sha256="5a210a92f035dff30c53b46157b612e7a1a5d3c99700e1b2d71da5c399ca7e70",
        licence="Apache-2.0",
        evidence="hash in three projects that check the file, one of them at commit 97d119d of this repository; "
        "licence tag of the repository",
    ),
    ReleasedFile(
        name="openclip_vit_h_14",
        repository="laion/CLIP-ViT-H-14-laion2B-s32B-b79K",
        file="open_clip_pytorch_model.bin",
        role="judge",
        used_by="evaluation/clip=openclip_vit_h_14 evaluation.measures.clip.weights=FILE",
        evidence="open_clip 3.3 loads it from there as laion2b_s32b_b79k; DynamiCrafter's files hold the same tower",
    ),
)


def find_released(name: str) -> ReleasedFile:
    """Return the file of this name, or the only whole model of this experiment. Raises ValueError for neither."""
    by_name = {file.name: file for file in RELEASED_FILES}
    if name in by_name:
        return by_name[name]
    belonging = [file for file in RELEASED_FILES if file.role == "full" and name in file.experiments]
    if len(belonging) == 1:
        return belonging[0]
    if belonging:
        raise ValueError(f"{name}: means {len(belonging)} files; name one: {', '.join(f.name for f in belonging)}")
    close = difflib.get_close_matches(name, by_name, n=1)
    guess = f"; did you mean {close[0]!r}?" if close else ""
    raise ValueError(f"{name}: no released file of this name{guess} (there are: {', '.join(by_name)})")


def released_with_hash(sha256: str) -> ReleasedFile | None:
    """Return the file that has this content."""
    return next((file for file in RELEASED_FILES if file.sha256 == sha256), None)
