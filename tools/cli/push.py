"""`effcap push`: uploads a preset to the Hugging Face hub."""

from __future__ import annotations

import argparse
from pathlib import Path

from effcap.tools.cli.options import add_options, given_options
from effcap.tools.cli.outputs import check_file
from effcap.tools.cli.parsing import add_config
from effcap.tools.cli.terminal import start_keras
from effcap.tools.publishing.card_options import CardOptions

CARD = ("license", "datasets", "scores")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `effcap push`."""
    parser.description = (
        "Uploads the files of a preset to the Hugging Face hub in one commit, and a model card "
        "unless the repository has one. Log in with `hf auth login` or set HF_TOKEN."
    )
    parser.add_argument("preset", metavar="PRESET", help="name or folder of a preset")
    parser.add_argument(
        "name", metavar="hf://USER/NAME", help="repository on the hub, created if missing"
    )
    parser.add_argument("--private", action="store_true", help="create a private repository")
    parser.add_argument("--branch", metavar="NAME", help="branch to push to (default: main)")
    parser.add_argument("--message", metavar="TEXT", help="message of the commit")
    parser.add_argument(
        "--base",
        metavar="hf://USER/NAME",
        help="preset on the hub that an adapter was added to, in place of a folder",
    )
    card = parser.add_argument_group("model card")
    add_options(card, CardOptions, CARD, metavars={"license": "ID", "datasets": "NAME"}, unset="{}")
    card.add_argument(
        "--card-only",
        type=Path,
        metavar="FILE",
        help="file to write the model card to, without uploading anything; README.md in the folder "
        "of the preset is uploaded as the card",
    )
    add_config(parser)


def run(arguments: argparse.Namespace) -> None:
    """Runs `effcap push`."""
    from effcap.presets import preset_folder
    from effcap.utils.hub import import_hub, parse_hub_name
    from effcap.utils.progress import print_line

    check_file(arguments.card_only, "--card-only")
    name = parse_hub_name(arguments.name)
    if arguments.branch is not None:
        if name.revision not in (None, arguments.branch):
            raise ValueError(f"Two branches: {name.revision} of {name}, and {arguments.branch}")
        name = parse_hub_name(f"hf://{name.repository}@{arguments.branch}")
    options = CardOptions(**given_options(arguments, CARD))
    import_hub()
    preset_folder(arguments.preset)  # reports errors before Keras is imported
    start_keras()
    if arguments.card_only is not None:
        from effcap.tools.publishing.model_card import model_card
        from effcap.utils.files import write_text_atomically

        write_text_atomically(arguments.card_only, model_card(arguments.preset, str(name), options))
        print_line(f"model card: {arguments.card_only}")
        return
    from effcap.tools.publishing.push import push_to_hub

    pushed = push_to_hub(
        arguments.preset,
        str(name),
        private=arguments.private,
        message=arguments.message,
        base=arguments.base,
        options=options,
    )
    print_line(f"uploaded: {', '.join(pushed.files)}")
    print(f"{pushed.url}\ncommit {pushed.commit}")
