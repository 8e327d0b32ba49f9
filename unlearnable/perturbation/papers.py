"""The papers of the methods, as a card cites them; the first lines of the methods name them too."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple


class Paper(NamedTuple):
    """A publication, with full author names separated as in BibTeX."""

    arxiv: str
    title: str
    authors: str
    venue: str
    year: int

    def bibtex(self) -> str:
        """A BibTeX entry; its key is first author, year and first long word of the title."""
        surname = self.authors.split(" and ")[0].split()[-1].replace("-", "")
        word = next(word for word in self.title.replace(":", "").split() if len(word) > 3)
        key = f"{surname}{self.year}{word.split('-')[0]}".lower()
        fields = {
            "title": f"{{{self.title}}}",  # a second pair of braces keeps capitals
            "author": self.authors,
            "booktitle": self.venue,
            "year": self.year,
            "eprint": self.arxiv,
            "archivePrefix": "arXiv",
        }
        lines = ",\n".join(f"  {name} = {{{value}}}" for name, value in fields.items())
        return f"@inproceedings{{{key},\n{lines}\n}}"


_EM = Paper(
    "2101.04898",
    "Unlearnable Examples: Making Personal Data Unexploitable",
    "Hanxun Huang and Xingjun Ma and Sarah Monazam Erfani and James Bailey and Yisen Wang",
    "ICLR",
    2021,
)
_CONTRASTIVE = Paper(
    "2402.04010",
    "Efficient Availability Attacks against Supervised and Contrastive Learning Simultaneously",
    "Yihan Wang and Yifan Zhu and Xiao-Shan Gao",
    "NeurIPS",
    2024,
)
_DUNE = Paper(
    "2605.01718",
    "Dual-branch Robust Unlearnable Examples",
    "Xianlong Wang and Hangtao Zhang and Wenbo Pan and Ziqi Zhou and Changsong Jiang and Li Zeng "
    "and Xiaohua Jia",
    "ICML",
    2026,
)
_LSP = Paper(
    "2111.00898",
    "Availability Attacks Create Shortcuts",
    "Da Yu and Huishuai Zhang and Wei Chen and Jian Yin and Tie-Yan Liu",
    "KDD",
    2022,
)
PAPERS = {
    "RandomNoise": _EM,  # its control
    "EM": _EM,
    "REM": Paper(
        "2203.14533",
        "Robust Unlearnable Examples: Protecting Data Against Adversarial Learning",
        "Shaopeng Fu and Fengxiang He and Yang Liu and Li Shen and Dacheng Tao",
        "ICLR",
        2022,
    ),
    "SEM": Paper(
        "2311.13091",
        "Stable Unlearnable Example: Enhancing the Robustness of Unlearnable Examples via Stable "
        "Error-Minimizing Noise",
        "Yixin Liu and Kaidi Xu and Xun Chen and Lichao Sun",
        "AAAI",
        2024,
    ),
    "TAP": Paper(
        "2106.10807",
        "Adversarial Examples Make Strong Poisons",
        "Liam Fowl and Micah Goldblum and Ping-yeh Chiang and Jonas Geiping and Wojciech Czaja "
        "and Tom Goldstein",
        "NeurIPS",
        2021,
    ),
    "SEP": Paper(
        "2211.12005",
        "Self-Ensemble Protection: Training Checkpoints Are Good Data Protectors",
        "Sizhe Chen and Geng Yuan and Xinwen Cheng and Yifan Gong and Minghai Qin and Yanzhi Wang "
        "and Xiaolin Huang",
        "ICLR",
        2023,
    ),
    "HYPO": Paper(
        "2201.13329",
        "Can Adversarial Training Be Manipulated By Non-Robust Features?",
        "Lue Tao and Lei Feng and Hongxin Wei and Jinfeng Yi and Sheng-Jun Huang and Songcan Chen",
        "NeurIPS",
        2022,
    ),
    "AUE": _CONTRASTIVE,
    "AAP": _CONTRASTIVE,
    "MIUE": Paper(
        "2603.03725",
        "Why Do Unlearnable Examples Work: A Novel Perspective of Mutual Information",
        "Yifan Zhu and Yibo Miao and Yinpeng Dong and Xiao-Shan Gao",
        "ICLR",
        2026,
    ),
    "PILNoise": Paper(
        "2601.19967",
        "Perturbation-Induced Linearization: Constructing Unlearnable Data with Solely Linear "
        "Classifiers",
        "Jinlin Liu and Wei Chen and Xiaojin Zhang",
        "ICLR",
        2026,
    ),
    "LSP": _LSP,
    "SmoothFields": _LSP,  # on which these are built
    "Gratings": _LSP,
    "Lasting": _LSP,
    "AR": Paper(
        "2206.03693",
        "Autoregressive Perturbations for Data Poisoning",
        "Pedro Sandoval-Segura and Vasu Singla and Jonas Geiping and Micah Goldblum and Tom "
        "Goldstein and David W. Jacobs",
        "NeurIPS",
        2022,
    ),
    "OPS": Paper(
        "2205.12141",
        "One-Pixel Shortcut: on the Learning Preference of Deep Neural Networks",
        "Shutong Wu and Sizhe Chen and Cihang Xie and Xiaolin Huang",
        "ICLR",
        2023,
    ),
    "ColourShift": _DUNE,  # by its swarm
    "DUNE": _DUNE,
    "BAIT": Paper(
        "2603.04731",
        "When Priors Backfire: On the Vulnerability of Unlearnable Examples to Pretraining",
        "Zhihao Li and Gezheng Xu and Jiale Cai and Ruiyi Fang and Di Wu and Qicheng Lao and "
        "Charles Ling and Boyu Wang",
        "ICLR",
        2026,
    ),
    "ClassConvolution": Paper(
        "2303.04278",
        "CUDA: Convolution-based Unlearnable Datasets",
        "Vinu Sankar Sadasivan and Mahdi Soltanolkotabi and Soheil Feizi",
        "CVPR",
        2023,
    ),
}


def papers_of(methods: Iterable[str]) -> list[Paper]:
    """The papers of the named methods, each once; unknown names are ignored."""
    return list(dict.fromkeys(PAPERS[name] for name in methods if name in PAPERS))
