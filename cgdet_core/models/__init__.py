"""The network, from blocks to the deployed student."""
