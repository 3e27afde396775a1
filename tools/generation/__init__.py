"""Text from a trained model of either form."""
