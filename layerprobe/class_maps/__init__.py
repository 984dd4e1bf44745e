"""Where on an image a network sees a class: CAM and its successors."""
