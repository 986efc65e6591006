"""The checkpoint that is asked."""

import pytest

from siqvl.model.assemble import load_checkpoint
from siqvl.recipe import Stage


@pytest.fixture(scope="session")
def asked(trained):
    """Model and processor of the checkpoint DPO starts from."""
    model, processor = load_checkpoint(
        trained.checkpoint(Stage.COT_SFT), attn_implementation="eager"
    )
    return model.eval(), processor
