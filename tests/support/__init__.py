"""What tests share: the real programs they run against, started on the side and stopped again."""
