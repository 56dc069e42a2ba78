"""What is measured beside the two scores: answers in words, copyrighted text, general capability."""
